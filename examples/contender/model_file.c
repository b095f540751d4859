/* Reads a model file of fastlstm: a safetensors file whose metadata entry `fastlstm` says which
 * layers there are (README.md, "The model file"). Whatever the bytes are, it reads none beyond
 * them. It leaves out the digest and the check vector: `fastlstm bench` has just written the file,
 * and compares the outputs. */
#include "json.h"
#include "network.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t LARGEST_FILE = (size_t)1 << 32;

struct model_file {
    char *bytes;
    char *architecture; /* the metadata entry, without its escapes */
    struct text header;
    const char *data, *data_end;
    size_t used; /* tensors that a layer has taken */
    struct refusal *refusal;
};

static bool refuse(struct model_file *file, bool unsupported, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(file->refusal->reason, sizeof file->refusal->reason, format, arguments);
    va_end(arguments);
    file->refusal->unsupported = unsupported;
    return false;
}

/* ---- Tensors ---- */

/* The header's entry for a tensor of that layer; false where there is none. */
static bool find_tensor(struct model_file *file, size_t layer, const char *name, struct text *entry)
{
    char full[80];
    snprintf(full, sizeof full, "layers.%zu.%s", layer, name);
    return find(file->header, full, entry);
}

/* The two sizes of a tensor, the second 1 where it has one axis. */
static bool shape_of(struct text entry, size_t *rows, size_t *columns)
{
    struct text shape, key, value;
    size_t axes = 0, sizes[2] = {1, 1};
    if (!find(entry, "shape", &shape) || !take(&shape, '['))
        return false;
    while (next_value(&shape, &key, &value)) {
        if (axes == 2 || !whole_number(value, &sizes[axes]) || sizes[axes] == 0)
            return false;
        axes++;
    }
    *rows = sizes[0];
    *columns = sizes[1];
    return axes > 0;
}

/* A copy of a tensor of that shape, transposed where asked for. An absent one that may be is zeros:
 * `needed` is false for it. */
static bool read_tensor(struct model_file *file, size_t layer, const char *name, size_t rows,
                        size_t columns, bool transposed, bool needed, float **values)
{
    struct text entry, value, key;
    size_t found_rows, found_columns, begin, end;
    if (!find_tensor(file, layer, name, &entry)) {
        if (needed)
            return refuse(file, false, "layer %zu: tensor %s is missing", layer, name);
        *values = floats_new(rows * columns);
        return *values || refuse(file, false, "out of memory");
    }
    if (!shape_of(entry, &found_rows, &found_columns) || found_rows != rows ||
        found_columns != columns)
        return refuse(file, false, "layer %zu: %s: expected the shape (%zu, %zu)", layer, name,
                      rows, columns);
    if (!find(entry, "dtype", &value) || !is_string(value, "F32"))
        return refuse(file, false, "layer %zu: %s: expected the dtype F32", layer, name);
    struct text offsets, first, second, more;
    size_t size = (size_t)(file->data_end - file->data);
    /* Divided, because a product of two sizes could overflow. */
    if (!find(entry, "data_offsets", &offsets) || !take(&offsets, '[') ||
        !next_value(&offsets, &key, &first) || !next_value(&offsets, &key, &second) ||
        next_value(&offsets, &key, &more) || !whole_number(first, &begin) ||
        !whole_number(second, &end) || begin > end || end > size || (end - begin) % 4 ||
        (end - begin) / 4 / rows != columns || (end - begin) / 4 % rows)
        return refuse(file, false, "layer %zu: %s: its data offsets do not fit", layer, name);
    *values = floats_new(rows * columns);
    if (!*values)
        return refuse(file, false, "out of memory");
    file->used++;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            float v;
            memcpy(&v, file->data + begin + 4 * (r * columns + c), 4);
            if (!isfinite(v))
                return refuse(file, false, "layer %zu: %s: not finite", layer, name);
            (*values)[transposed ? c * rows + r : r * columns + c] = v;
        }
    return true;
}

/* ---- Layers ---- */

/* Sets the choice that an option makes; an option that is not known may change the numbers. */
static bool read_option(struct model_file *file, size_t k, struct layer *layer, struct text key,
                        struct text value)
{
    static const char *const names[] = {"linear", "relu", "tanh", "sigmoid"};
    if (is_text(key, "kind"))
        return true;
    if (layer->kind == GRU && is_text(key, "reset"))
        return is_string(value, "after") ||
               refuse(file, true, "layer %zu: a GRU with its reset gate before the product", k);
    if ((layer->kind == DENSE && is_text(key, "activation")) ||
        (layer->kind == RNN && is_text(key, "nonlinearity"))) {
        for (size_t j = layer->kind == RNN; j < 4 - (size_t)(layer->kind == RNN); j++)
            if (is_string(value, names[j])) {
                layer->activation = (enum activation)j;
                return true;
            }
        return refuse(file, true, "layer %zu: the activation %.*s", k, shown(value), value.at);
    }
    return refuse(file, true, "layer %zu: the option %.*s", k, shown(key), key.at);
}

static bool read_recurrent(struct model_file *file, size_t k, struct layer *layer)
{
    size_t rows = layer->gates * layer->outputs;
    struct text entry;
    if (find_tensor(file, k, "weight_hr_l0", &entry))
        return refuse(file, true, "layer %zu: an LSTM with a projection", k);
    if (find_tensor(file, k, "peephole_l0", &entry))
        return refuse(file, true, "layer %zu: an LSTM with peepholes", k);
    if (!read_tensor(file, k, "weight_ih_l0", rows, layer->inputs, true, true, &layer->weight_ih) ||
        !read_tensor(file, k, "weight_hh_l0", rows, layer->outputs, true, true,
                     &layer->weight_hh) ||
        !read_tensor(file, k, "bias_ih_l0", rows, 1, false, false, &layer->bias_ih) ||
        !read_tensor(file, k, "bias_hh_l0", rows, 1, false, false, &layer->bias_hh) ||
        !read_tensor(file, k, "h0", layer->outputs, 1, false, false, &layer->h0) ||
        (layer->kind == LSTM &&
         !read_tensor(file, k, "c0", layer->outputs, 1, false, false, &layer->c0)))
        return false;
    /* A GRU's n needs the two apart. */
    for (size_t u = 0; layer->kind != GRU && u < rows; u++)
        layer->bias_ih[u] += layer->bias_hh[u];
    return true;
}

static bool read_layer(struct model_file *file, size_t k, struct text object, struct layer *layer)
{
    static const char *const kinds[] = {"LSTM", "GRU", "RNN", "Dense", "Affine"};
    static const size_t gates[] = {4, 3, 1, 0, 0};
    struct text value, key, entry;
    size_t kind = 0, rows, columns;
    if (!find(object, "kind", &value))
        return refuse(file, false, "layer %zu has no kind", k);
    while (kind < 5 && !is_string(value, kinds[kind]))
        kind++;
    if (kind == 5)
        return refuse(file, true, "layer %zu: a layer of kind %.*s", k, shown(value), value.at);
    layer->kind = (enum kind)kind;
    layer->gates = gates[kind];
    take(&object, '{');
    while (next_value(&object, &key, &value))
        if (!read_option(file, k, layer, key, value))
            return false;
    const char *first = layer->gates ? "weight_ih_l0" : kind == DENSE ? "weight" : "scale";
    if (!find_tensor(file, k, first, &entry) || !shape_of(entry, &rows, &columns))
        return refuse(file, false, "layer %zu: expected a tensor %s of one or two axes", k, first);
    layer->inputs = kind == AFFINE ? rows : columns;
    layer->outputs = layer->gates ? rows / layer->gates : rows;
    if (layer->gates)
        return read_recurrent(file, k, layer);
    if (kind == DENSE)
        return read_tensor(file, k, "weight", rows, columns, false, true, &layer->weight_ih) &&
               read_tensor(file, k, "bias", rows, 1, false, false, &layer->bias_ih);
    return read_tensor(file, k, "scale", rows, 1, false, true, &layer->weight_ih) &&
           read_tensor(file, k, "shift", rows, 1, false, true, &layer->bias_ih);
}

static bool read_layers(struct model_file *file, struct text architecture, struct network *network)
{
    struct text value, key;
    size_t count = 0;
    if (!find(architecture, "format_version", &value) || !is_text(value, "1"))
        return refuse(file, false, "expected the format_version 1");
    if (!find(architecture, "layers", &value) || !take(&value, '['))
        return refuse(file, false, "expected an array of layers");
    for (struct text counted = value, each; next_value(&counted, &key, &each);)
        count++;
    network->layers = calloc(count + 1, sizeof *network->layers);
    if (!network->layers)
        return refuse(file, false, "out of memory");
    for (struct text each; next_value(&value, &key, &each); network->count++) {
        struct layer *layer = &network->layers[network->count];
        if (!read_layer(file, network->count, each, layer)) {
            network->count++; /* so that what it has already is given back */
            return false;
        }
        if (network->count && layer[-1].outputs != layer->inputs) {
            size_t k = network->count++;
            return refuse(file, false, "layer %zu: it does not take what the one before puts out",
                          k);
        }
    }
    if (network->count == 0)
        return refuse(file, false, "expected at least one layer");
    size_t tensors = 0;
    struct text header = file->header, each;
    take(&header, '{');
    while (next_value(&header, &key, &each))
        tensors += !is_text(key, "__metadata__") && !is_text(key, "check.input") &&
                   !is_text(key, "check.output");
    return tensors == file->used || refuse(file, false, "a tensor belongs to no layer");
}

/* ---- The file ---- */

static bool read_bytes(struct model_file *file, const char *path, size_t *size)
{
    FILE *from = fopen(path, "rb");
    if (!from)
        return refuse(file, false, "cannot open %s", path);
    long length = fseek(from, 0, SEEK_END) ? -1 : ftell(from);
    bool whole = length >= 0 && (size_t)length <= LARGEST_FILE && !fseek(from, 0, SEEK_SET);
    *size = whole ? (size_t)length : 0;
    file->bytes = whole ? malloc(*size + 1) : NULL;
    whole = file->bytes && fread(file->bytes, 1, *size, from) == *size;
    fclose(from);
    return whole || refuse(file, false, "cannot read %s", path);
}

static bool read_file(struct model_file *file, const char *path, struct network *network)
{
    size_t size = 0, length = 0;
    if (!read_bytes(file, path, &size))
        return false;
    uint64_t header = 0;
    for (size_t k = 0; size >= 8 && k < 8; k++)
        header |= (uint64_t)(unsigned char)file->bytes[k] << 8 * k;
    if (size < 8 || header > size - 8)
        return refuse(file, false, "not a whole safetensors file");
    file->data = file->bytes + 8 + header;
    file->data_end = file->bytes + size;
    file->header = (struct text){file->bytes + 8, file->data};
    struct text metadata, entry;
    if (!is_json(file->header))
        return refuse(file, false, "the header is not JSON");
    if (!find(file->header, "__metadata__", &metadata) || !find(metadata, "fastlstm", &entry) ||
        *entry.at != '"')
        return refuse(file, false, "no metadata entry fastlstm");
    file->architecture = unescape(entry, &length);
    if (!file->architecture)
        return refuse(file, false, "the architecture has escapes that fastlstm does not write");
    struct text architecture = {file->architecture, file->architecture + length};
    return is_json(architecture) ? read_layers(file, architecture, network)
                                 : refuse(file, false, "the architecture is not JSON");
}

bool network_load(struct network *network, const char *path, struct refusal *refusal)
{
    struct model_file file = {.refusal = refusal};
    *network = (struct network){0};
    bool good = read_file(&file, path, network);
    free(file.bytes);
    free(file.architecture);
    if (!good)
        network_free(network);
    return good;
}
