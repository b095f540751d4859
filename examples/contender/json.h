/* JSON as cursors over a text that is never copied: enough for the header of a model file. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

/* A piece of the text; a cursor is one whose `at` moves. */
struct text {
    const char *at, *end;
};

/* Whether it is one JSON value and nothing else. All below may only be asked of such a text. */
bool is_json(struct text t);

/* Moves past that character, and the space before it, if it comes next: so it enters an object. */
bool take(struct text *t, char wanted);
/* The next value of the object or array that the cursor has entered, with its key, which is empty
 * in an array; false at its end. */
bool next_value(struct text *inside, struct text *key, struct text *value);
/* The value of a member; false where there is none, or no object. */
bool find(struct text object, const char *name, struct text *value);

bool is_text(struct text t, const char *wanted);
/* Whether the value is that string, as it stands between its quotes. */
bool is_string(struct text value, const char *wanted);
bool whole_number(struct text value, size_t *number);
/* The text that a JSON string stands for, not ended by a 0; NULL where it has escapes beyond \" and
 * \\, which the architecture as fastlstm writes it has not. */
char *unescape(struct text value, size_t *length);

/* How much of a text a message shows: printf's precision is an int. */
int shown(struct text t);

#endif
