/* The equations of the layers, as README.md, "The model file", writes them. Plain loops: the
 * compiler makes vectors of them. */
#include "network.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, LANES = 16 };

struct place {
    float *output; /* (count, outputs); of a recurrent layer its h */
    float *cell;   /* (count, outputs) of an LSTM */
};

struct streams {
    const struct network *network;
    size_t count;
    struct place *places; /* one a layer */
    float *a, *b;         /* (count, gates * outputs) of the greatest layer */
};

size_t times(size_t a, size_t b)
{
    return b && a > SIZE_MAX / b ? SIZE_MAX : a * b;
}

float *floats_new(size_t count)
{
    if (count > SIZE_MAX / 8)
        return NULL;
    size_t bytes = (count * sizeof(float) / ALIGNMENT + 1) * ALIGNMENT;
    float *values = aligned_alloc(ALIGNMENT, bytes);
    if (values)
        memset(values, 0, bytes);
    return values;
}

size_t network_inputs(const struct network *network)
{
    return network->layers[0].inputs;
}

size_t network_outputs(const struct network *network)
{
    return network->layers[network->count - 1].outputs;
}

void network_free(struct network *network)
{
    for (size_t k = 0; k < network->count; k++) {
        struct layer *layer = &network->layers[k];
        float *arrays[] = {layer->weight_ih, layer->weight_hh, layer->bias_ih,
                           layer->bias_hh,   layer->h0,        layer->c0};
        for (size_t j = 0; j < sizeof arrays / sizeof *arrays; j++)
            free(arrays[j]);
    }
    free(network->layers);
    *network = (struct network){0};
}

struct streams *streams_new(const struct network *network, size_t count)
{
    struct streams *streams = calloc(1, sizeof *streams);
    if (!streams)
        return NULL;
    streams->network = network;
    streams->count = count;
    streams->places = calloc(network->count, sizeof *streams->places);
    size_t rows = 1;
    bool whole = streams->places != NULL;
    for (size_t k = 0; whole && k < network->count; k++) {
        const struct layer *layer = &network->layers[k];
        struct place *place = &streams->places[k];
        place->output = floats_new(times(count, layer->outputs));
        place->cell = floats_new(layer->kind == LSTM ? times(count, layer->outputs) : 1);
        whole = place->output && place->cell;
        if (layer->gates * layer->outputs > rows)
            rows = layer->gates * layer->outputs;
    }
    streams->a = floats_new(times(count, rows));
    streams->b = floats_new(times(count, rows));
    if (!whole || !streams->a || !streams->b) {
        streams_free(streams);
        return NULL;
    }
    streams_reset(streams);
    return streams;
}

void streams_free(struct streams *streams)
{
    if (!streams)
        return;
    for (size_t k = 0; streams->places && k < streams->network->count; k++) {
        free(streams->places[k].output);
        free(streams->places[k].cell);
    }
    free(streams->places);
    free(streams->a);
    free(streams->b);
    free(streams);
}

void streams_reset(struct streams *streams)
{
    for (size_t k = 0; k < streams->network->count; k++) {
        const struct layer *layer = &streams->network->layers[k];
        size_t bytes = layer->outputs * sizeof(float);
        for (size_t s = 0; layer->gates && s < streams->count; s++) {
            memcpy(streams->places[k].output + s * layer->outputs, layer->h0, bytes);
            if (layer->kind == LSTM)
                memcpy(streams->places[k].cell + s * layer->outputs, layer->c0, bytes);
        }
    }
}

static float sigmoid(float v)
{
    /* Beyond -80 it is 0 to any reader; expf would overflow, and -ffast-math knows no infinity. */
    return 1.0f / (1.0f + expf(v < -80.0f ? 80.0f : -v));
}

static float activate(enum activation activation, float v)
{
    switch (activation) {
    case RELU:
        return v > 0.0f ? v : 0.0f;
    case TANH:
        return tanhf(v);
    case SIGMOID:
        return sigmoid(v);
    default:
        return v;
    }
}

/* z (count, rows) += x (count, columns) by the transposed weight (columns, rows). Four columns at a
 * time, because z is loaded and stored once for them all. */
static void add_product(size_t count, size_t rows, size_t columns, const float *restrict weight,
                        const float *restrict x, float *restrict z)
{
    size_t k = 0;
    for (; k + 4 <= columns; k += 4) {
        const float *restrict w = weight + k * rows;
        for (size_t s = 0; s < count; s++) {
            const float *v = x + s * columns + k;
            float v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3];
            float *restrict sums = z + s * rows;
            for (size_t u = 0; u < rows; u++)
                sums[u] += w[u] * v0 + w[rows + u] * v1 + w[2 * rows + u] * v2 +
                           w[3 * rows + u] * v3;
        }
    }
    for (; k < columns; k++)
        for (size_t s = 0; s < count; s++) {
            float v = x[s * columns + k];
            for (size_t u = 0; u < rows; u++)
                z[s * rows + u] += weight[k * rows + u] * v;
        }
}

/* The sum of a[k] * b[k], in as many parts as a vector has lanes: one sum alone would have to be
 * added in order. */
static float dot(size_t n, const float *restrict a, const float *restrict b)
{
    float parts[LANES] = {0}, sum = 0.0f;
    size_t k = 0;
    for (; k + LANES <= n; k += LANES)
        for (size_t j = 0; j < LANES; j++)
            parts[j] += a[k + j] * b[k + j];
    for (; k < n; k++)
        sum += a[k] * b[k];
    for (size_t j = 0; j < LANES; j++)
        sum += parts[j];
    return sum;
}

/* The bias for each stream, to which the products are added: z (count, rows). */
static void begin_gates(const struct layer *layer, size_t count, const float *bias, float *z)
{
    size_t rows = layer->gates * layer->outputs;
    for (size_t s = 0; s < count; s++)
        memcpy(z + s * rows, bias, rows * sizeof(float));
}

static void lstm_step(const struct layer *layer, struct streams *streams, struct place *place,
                      const float *x)
{
    size_t n = streams->count, H = layer->outputs;
    begin_gates(layer, n, layer->bias_ih, streams->a); /* which holds both biases */
    add_product(n, 4 * H, layer->inputs, layer->weight_ih, x, streams->a);
    add_product(n, 4 * H, H, layer->weight_hh, place->output, streams->a);
    for (size_t s = 0; s < n; s++) {
        const float *i = streams->a + s * 4 * H, *f = i + H, *g = f + H, *o = g + H;
        float *h = place->output + s * H, *c = place->cell + s * H;
        for (size_t u = 0; u < H; u++) {
            c[u] = sigmoid(f[u]) * c[u] + sigmoid(i[u]) * tanhf(g[u]);
            h[u] = sigmoid(o[u]) * tanhf(c[u]);
        }
    }
}

static void gru_step(const struct layer *layer, struct streams *streams, struct place *place,
                     const float *x)
{
    size_t n = streams->count, H = layer->outputs;
    begin_gates(layer, n, layer->bias_ih, streams->a);
    begin_gates(layer, n, layer->bias_hh, streams->b);
    add_product(n, 3 * H, layer->inputs, layer->weight_ih, x, streams->a);
    add_product(n, 3 * H, H, layer->weight_hh, place->output, streams->b);
    for (size_t s = 0; s < n; s++) {
        const float *a = streams->a + s * 3 * H, *b = streams->b + s * 3 * H;
        float *h = place->output + s * H;
        for (size_t u = 0; u < H; u++) {
            float r = sigmoid(a[u] + b[u]);
            float z = sigmoid(a[H + u] + b[H + u]);
            float candidate = tanhf(a[2 * H + u] + r * b[2 * H + u]);
            h[u] = (1.0f - z) * candidate + z * h[u];
        }
    }
}

static void rnn_step(const struct layer *layer, struct streams *streams, struct place *place,
                     const float *x)
{
    size_t n = streams->count, H = layer->outputs;
    begin_gates(layer, n, layer->bias_ih, streams->a); /* which holds both biases */
    add_product(n, H, layer->inputs, layer->weight_ih, x, streams->a);
    add_product(n, H, H, layer->weight_hh, place->output, streams->a);
    for (size_t u = 0; u < n * H; u++)
        place->output[u] = activate(layer->activation, streams->a[u]);
}

static void dense_step(const struct layer *layer, size_t count, struct place *place, const float *x)
{
    for (size_t s = 0; s < count; s++)
        for (size_t u = 0; u < layer->outputs; u++) {
            const float *row = layer->weight_ih + u * layer->inputs;
            float sum = dot(layer->inputs, row, x + s * layer->inputs) + layer->bias_ih[u];
            place->output[s * layer->outputs + u] = activate(layer->activation, sum);
        }
}

static void affine_step(const struct layer *layer, size_t count, struct place *place,
                        const float *x)
{
    size_t n = layer->outputs;
    for (size_t s = 0; s < count; s++)
        for (size_t u = 0; u < n; u++)
            place->output[s * n + u] = layer->weight_ih[u] * x[s * n + u] + layer->bias_ih[u];
}

static void step(struct streams *streams, const float *x, float *y)
{
    const struct network *network = streams->network;
    for (size_t k = 0; k < network->count; k++) {
        const struct layer *layer = &network->layers[k];
        struct place *place = &streams->places[k];
        switch (layer->kind) {
        case LSTM:
            lstm_step(layer, streams, place, x);
            break;
        case GRU:
            gru_step(layer, streams, place, x);
            break;
        case RNN:
            rnn_step(layer, streams, place, x);
            break;
        case DENSE:
            dense_step(layer, streams->count, place, x);
            break;
        case AFFINE:
            affine_step(layer, streams->count, place, x);
            break;
        }
        x = place->output;
    }
    memcpy(y, x, streams->count * network_outputs(network) * sizeof(float));
}

void streams_run(struct streams *streams, size_t steps, const float *x, float *y)
{
    size_t inputs = streams->count * network_inputs(streams->network);
    size_t outputs = streams->count * network_outputs(streams->network);
    for (size_t k = 0; k < steps; k++)
        step(streams, x + k * inputs, y + k * outputs);
}
