/* Timed calls, by this program's own clock. */
#ifndef TURNS_H
#define TURNS_H

#include "network.h"

#include <stdint.h>

struct turn {
    struct streams *streams;
    size_t width;  /* streams */
    size_t block;  /* samples of each stream in a call */
    size_t inputs; /* calls that x has samples for; later ones begin at its start again */
    size_t calls;  /* that y and ns have room for */
    size_t done;
    size_t I, O;   /* values in a sample and in an output of one stream */
    float *x, *y;  /* (inputs, block, width, I) and (calls, block, width, O) */
    int64_t *ns;   /* of each call */
};

/* Memory for outputs and times, touched before the clock runs; false where there is none. */
bool turn_begin(struct turn *turn);
void turn_end(struct turn *turn);

/* Calls that do not count, from the initial state; after them the state is the initial one again. */
void turn_warm_up(struct turn *turn, size_t calls);
/* So many calls in a loop that is timed as a whole: nanoseconds. */
int64_t turn_loop(struct turn *turn, size_t calls);
/* The calls that are left, each timed from its own start or, with `due`, from when it was due,
 * which is nanoseconds after the first moment. */
void turn_calls(struct turn *turn, const int64_t *due);

#endif
