/* A contender for `fastlstm bench`: answers the requests of docs/contender-protocol.md, one a line,
 * and times its own calls, so that the pipe is in no figure. */
#include "turns.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FLAGS
#define FLAGS "flags not given"
#endif

#define COUNT_MAX 10000000u

static struct network network;
static struct streams *one, *many;
static size_t many_count;
static size_t I, O; /* values in a sample, and in an output */

/* ---- Lines ---- */

static void end_answer(void)
{
    putchar('\n');
    fflush(stdout);
}

/* All that a ping asks for. */
static void ok(const char *at)
{
    (void)at;
    printf("ok");
    end_answer();
}

/* `error REASON` or `unsupported REASON`. A reason may hold what a hostile file says. */
static void refuse(const char *word, const char *format, ...)
{
    char reason[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    for (char *c = reason; *c; c++)
        if (!isprint((unsigned char)*c))
            *c = '?';
    printf("%s %s", word, reason);
    end_answer();
}

static void expected(const char *what)
{
    refuse("error", "expected %s; a sample has %zu values", what, I);
}

/* A whole number from `least` to COUNT_MAX. */
static bool take_count(const char **at, size_t least, size_t *count)
{
    char *end;
    *at += strspn(*at, " ");
    if (!isdigit((unsigned char)**at))
        return false;
    unsigned long long value = strtoull(*at, &end, 10);
    *at = end;
    *count = (size_t)value;
    return value >= least && value <= COUNT_MAX && (*end == ' ' || *end == '\0');
}

/* Exactly so many finite numbers, and then the end of the line; NULL for anything else, and where
 * there is no memory. */
static float *take_floats(const char *at, size_t count)
{
    /* No more than the line can hold, before any memory is asked for. */
    float *values = count <= strlen(at) / 2 + 1 ? floats_new(count) : NULL;
    bool good = values != NULL;
    for (size_t k = 0; good && k < count; k++) {
        char *end;
        values[k] = strtof(at, &end);
        good = end != at && isfinite(values[k]);
        at = end;
    }
    if (good && at[strspn(at, " ")] == '\0')
        return values;
    free(values);
    return NULL;
}

static void put_floats(const float *values, size_t count)
{
    for (size_t k = 0; k < count; k++)
        printf(" %.9g", (double)values[k]);
}

/* ---- Timed turns ---- */

/* The times of all calls but the first `skipped`, and what shows that all of them were real: the
 * last outputs, and the sum of each output over all timed steps. */
static void put_turn(const struct turn *turn, size_t skipped)
{
    size_t steps = turn->done * turn->block, values = turn->width * turn->O;
    printf("\tcalls=");
    for (size_t k = skipped; k < turn->done; k++)
        printf(" %lld", (long long)turn->ns[k]);
    printf("\tlast=");
    put_floats(turn->y + (steps - 1) * values, values);
    printf("\tsum=");
    for (size_t u = 0; u < values; u++) {
        double sum = 0;
        for (size_t k = 0; k < steps; k++)
            sum += turn->y[k * values + u];
        printf(" %.9g", sum);
    }
    end_answer();
}

/* Due times, which rise; NULL where there are no such. Moves on past them. */
static int64_t *take_times(const char **at, size_t count)
{
    int64_t *due = count <= strlen(*at) / 2 + 1 ? malloc(count * sizeof *due) : NULL;
    bool good = due != NULL;
    for (size_t k = 0; good && k < count; k++) {
        char *end;
        due[k] = strtoll(*at, &end, 10);
        good = end != *at && due[k] >= (k ? due[k - 1] : 0) && due[k] < INT64_MAX / 2;
        *at = end;
    }
    if (good)
        return due;
    free(due);
    return NULL;
}

enum way { STEPS, SEQUENCES, SCHEDULED, BATCHES };

/* WARM and two more counts, due times where calls are scheduled, and the samples. */
static void time_turn(enum way way, const char *at)
{
    size_t warm, a, b;
    struct turn turn = {.streams = one, .width = 1, .block = 1, .I = I, .O = O};
    int64_t *due = NULL;
    bool good = take_count(&at, 0, &warm) && take_count(&at, way != STEPS, &a) &&
                take_count(&at, 1, &b);
    if (good) {
        turn.inputs = way == SEQUENCES ? 1 : way == SCHEDULED ? a : b;
        turn.calls = way == STEPS ? a + b : way == BATCHES ? b : a;
        turn.block = way == SEQUENCES || way == SCHEDULED ? b : 1;
        turn.width = way == BATCHES ? a : 1;
        if (way == SCHEDULED)
            good = (due = take_times(&at, a)) != NULL;
    }
    size_t samples = times(turn.inputs, times(turn.block, turn.width));
    if (good && (turn.x = take_floats(at, times(samples, I))) != NULL) {
        turn.streams = way == BATCHES ? streams_new(&network, a) : one;
        if (turn.streams && turn_begin(&turn)) {
            turn_warm_up(&turn, warm);
            printf("ok");
            if (way == STEPS)
                printf("\ttotal=%lld", (long long)turn_loop(&turn, b));
            turn_calls(&turn, due);
            put_turn(&turn, way == STEPS ? b : 0);
        } else {
            refuse("error", "out of memory");
        }
        if (way == BATCHES)
            streams_free(turn.streams);
    } else {
        expected("WARM, two counts, for time-scheduled rising due times, and samples");
    }
    turn_end(&turn);
    free(due);
}

static void time_steps(const char *at)
{
    time_turn(STEPS, at);
}

static void time_sequences(const char *at)
{
    time_turn(SEQUENCES, at);
}

static void time_scheduled(const char *at)
{
    time_turn(SCHEDULED, at);
}

static void time_batches(const char *at)
{
    time_turn(BATCHES, at);
}

/* ---- Untimed requests ---- */

static void hello(const char *at)
{
    if (strcmp(at, "1")) {
        refuse("error", "this program speaks version 1 of the protocol");
        return;
    }
    printf("ok\tprotocol=1\tname=C example\tversion=1.0\tprecision=float32\tformat=safetensors\t"
           "can=step run batch\tconfiguration=one thread, plain loops, run is a loop of steps, "
           "compiler %s, %s",
           __VERSION__, FLAGS);
    end_answer();
}

static void unload(void)
{
    streams_free(one);
    streams_free(many);
    one = many = NULL;
    network_free(&network);
}

static void load(const char *path)
{
    struct refusal refusal = {0};
    unload();
    if (!network_load(&network, path, &refusal)) {
        refuse(refusal.unsupported ? "unsupported" : "error", "%s", refusal.reason);
        return;
    }
    I = network_inputs(&network);
    O = network_outputs(&network);
    one = streams_new(&network, 1);
    if (!one) {
        refuse("error", "out of memory");
        return;
    }
    printf("ok %zu %zu", I, O);
    end_answer();
}

static void reset(const char *at)
{
    streams_reset(one);
    ok(at);
}

/* The outputs of x (steps, width, I), untimed. */
static void answer_outputs(const char *at, struct streams *streams, size_t width, size_t steps)
{
    size_t inputs = times(steps, times(width, I)), outputs = times(steps, times(width, O));
    float *x = take_floats(at, inputs);
    float *y = x ? floats_new(outputs) : NULL;
    if (y) {
        streams_run(streams, steps, x, y);
        printf("ok");
        put_floats(y, outputs);
        end_answer();
    } else {
        expected("finite values, as many as there are samples");
    }
    free(x);
    free(y);
}

static void step(const char *at)
{
    answer_outputs(at, one, 1, 1);
}

static void run_block(const char *at)
{
    size_t steps;
    if (take_count(&at, 1, &steps))
        answer_outputs(at, one, 1, steps);
    else
        expected("run T and T samples");
}

static void begin(const char *at)
{
    streams_free(many);
    many = take_count(&at, 1, &many_count) && !*at ? streams_new(&network, many_count) : NULL;
    if (many)
        ok(NULL);
    else
        expected("begin N, and memory for N streams");
}

static void batch(const char *at)
{
    if (many)
        answer_outputs(at, many, many_count, 1);
    else
        expected("begin N before batch");
}

static void quit(const char *at)
{
    ok(at);
    exit(EXIT_SUCCESS);
}

static const struct request {
    const char *name;
    void (*answer)(const char *rest);
    bool needs_model;
} REQUESTS[] = {
    {"hello", hello, false},
    {"load", load, false},
    {"ping", ok, false},
    {"quit", quit, false},
    {"reset", reset, true},
    {"step", step, true},
    {"run", run_block, true},
    {"begin", begin, true},
    {"batch", batch, true},
    {"time-steps", time_steps, true},
    {"time-sequences", time_sequences, true},
    {"time-scheduled", time_scheduled, true},
    {"time-batches", time_batches, true},
};

static void answer(const char *line)
{
    size_t length = strcspn(line, " ");
    for (size_t k = 0; k < sizeof REQUESTS / sizeof *REQUESTS; k++) {
        const struct request *request = &REQUESTS[k];
        if (strlen(request->name) != length || memcmp(request->name, line, length))
            continue;
        if (request->needs_model && !one)
            refuse("error", "expected load PATH before %s", request->name);
        else
            request->answer(line + length + (line[length] == ' '));
        return;
    }
    refuse("error", "unknown request %.60s", line);
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        line[length - 1] = line[length - 1] == '\n' ? '\0' : line[length - 1];
        answer(line);
    }
    free(line);
    unload();
    return EXIT_SUCCESS;
}
