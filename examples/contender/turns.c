/* The clock, and calls timed by it. */
#include "turns.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The last part of a wait spins, because a sleeping thread wakes up late. */
static const int64_t SPIN_NS = 300000;
/* Scheduled calls begin so long after the warm-up, so that the first is not late by itself ... */
static const int64_t LEAD_NS = 1000000;
/* ... and end once one is done so late: a contender that far behind does not catch up. */
static const int64_t HOPELESS_NS = 1000000000;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Back at `due` or as soon after as this thread can; at once if it is past. */
static void wait_until(int64_t due)
{
    int64_t left = due - now_ns();
    if (left > 2 * SPIN_NS) {
        int64_t nap = left - SPIN_NS;
        struct timespec sleep = {nap / 1000000000, nap % 1000000000};
        nanosleep(&sleep, NULL);
    }
    while (now_ns() < due)
        ;
}

bool turn_begin(struct turn *turn)
{
    turn->y = floats_new(times(turn->calls, times(turn->block, times(turn->width, turn->O))));
    turn->ns = malloc(turn->calls * sizeof *turn->ns);
    if (!turn->y || !turn->ns)
        return false;
    memset(turn->ns, 0, turn->calls * sizeof *turn->ns);
    return true;
}

void turn_end(struct turn *turn)
{
    free(turn->x);
    free(turn->y);
    free(turn->ns);
}

static const float *inputs_of(const struct turn *turn, size_t call)
{
    return turn->x + call % turn->inputs * turn->block * turn->width * turn->I;
}

static float *outputs_of(const struct turn *turn, size_t call)
{
    return turn->y + call * turn->block * turn->width * turn->O;
}

void turn_warm_up(struct turn *turn, size_t calls)
{
    streams_reset(turn->streams);
    for (size_t k = 0; k < calls; k++)
        streams_run(turn->streams, turn->block, inputs_of(turn, k), turn->y);
    streams_reset(turn->streams);
}

int64_t turn_loop(struct turn *turn, size_t calls)
{
    int64_t start = now_ns();
    for (size_t k = 0; k < calls; k++)
        streams_run(turn->streams, turn->block, inputs_of(turn, k), outputs_of(turn, k));
    int64_t total = now_ns() - start;
    turn->done = calls;
    return total;
}

void turn_calls(struct turn *turn, const int64_t *due)
{
    int64_t first = now_ns() + LEAD_NS;
    while (turn->done < turn->calls) {
        size_t k = turn->done++;
        const float *x = inputs_of(turn, k);
        float *y = outputs_of(turn, k);
        if (due)
            wait_until(first + due[k]);
        int64_t start = due ? first + due[k] : now_ns();
        streams_run(turn->streams, turn->block, x, y);
        turn->ns[k] = now_ns() - start;
        if (due && turn->ns[k] > HOPELESS_NS)
            break;
    }
}
