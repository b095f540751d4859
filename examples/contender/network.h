/* A network as arrays, and live streams of it. Weights of recurrent layers are held transposed, so
 * that the innermost loop runs over units that lie side by side, which a compiler vectorises. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdbool.h>
#include <stddef.h>

enum kind { LSTM, GRU, RNN, DENSE, AFFINE };
enum activation { LINEAR, RELU, TANH, SIGMOID };

struct layer {
    enum kind kind;
    enum activation activation; /* of a Dense and of an RNN */
    size_t inputs, outputs, gates;
    float *weight_ih;           /* (inputs, gates * outputs); Dense: (outputs, inputs); Affine: scale */
    float *weight_hh;           /* (outputs, gates * outputs) */
    float *bias_ih, *bias_hh;   /* (gates * outputs), zero where the file has none; Affine: shift */
    float *h0, *c0;             /* (outputs), zero where the file has none */
};

struct network {
    size_t count;
    struct layer *layers;
};

struct refusal {
    bool unsupported; /* the file is sound, but this program lacks what it needs */
    char reason[256];
};

/* Read a model file of fastlstm; false fills in `refusal`, and the network is empty then. */
bool network_load(struct network *network, const char *path, struct refusal *refusal);
void network_free(struct network *network);
size_t network_inputs(const struct network *network);
size_t network_outputs(const struct network *network);

/* `count` live streams, each with a state of its own; NULL where there is no memory. */
struct streams *streams_new(const struct network *network, size_t count);
void streams_free(struct streams *streams);
void streams_reset(struct streams *streams);
/* So many samples for each stream: x (steps, count, inputs) -> y (steps, count, outputs), as a loop
 * of steps. Allocates nothing. */
void streams_run(struct streams *streams, size_t steps, const float *x, float *y);

/* a * b, or SIZE_MAX where that is more than memory can hold anyway. */
size_t times(size_t a, size_t b);
/* `count` zeros where vectors like them, already touched; NULL where there is no memory. */
float *floats_new(size_t count);

#endif
