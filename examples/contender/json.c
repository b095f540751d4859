/* JSON as far as a model file needs it: one pass checks the whole text, after which cursors may
 * trust it. */
#include "json.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

static void skip_space(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t' || *t->at == '\r'))
        t->at++;
}

bool take(struct text *t, char wanted)
{
    skip_space(t);
    if (t->at == t->end || *t->at != wanted)
        return false;
    t->at++;
    return true;
}

static bool skip_string(struct text *t)
{
    if (!take(t, '"'))
        return false;
    for (; t->at < t->end && *t->at != '"'; t->at++)
        if (*t->at == '\\' && ++t->at == t->end)
            return false;
    return take(t, '"');
}

static bool skip_value(struct text *t, int depth)
{
    skip_space(t);
    if (depth == 0 || t->at == t->end)
        return false;
    char open = *t->at;
    if (open == '"')
        return skip_string(t);
    if (open != '{' && open != '[') {
        const char *begin = t->at;
        while (t->at < t->end && *t->at && (isalnum((unsigned char)*t->at) || strchr("+-.", *t->at)))
            t->at++;
        return t->at > begin;
    }
    char close = open == '{' ? '}' : ']';
    t->at++;
    if (take(t, close))
        return true;
    do {
        if (open == '{' && !(skip_string(t) && take(t, ':')))
            return false;
        if (!skip_value(t, depth - 1))
            return false;
    } while (take(t, ','));
    return take(t, close);
}

bool is_json(struct text t)
{
    if (!skip_value(&t, DEEPEST))
        return false;
    skip_space(&t);
    return t.at == t.end;
}

bool next_value(struct text *inside, struct text *key, struct text *value)
{
    take(inside, ',');
    skip_space(inside);
    if (inside->at == inside->end || *inside->at == '}' || *inside->at == ']')
        return false;
    struct text first = {inside->at, inside->at};
    skip_value(inside, DEEPEST);
    first.end = inside->at;
    *key = (struct text){NULL, NULL};
    if (take(inside, ':')) {
        *key = (struct text){first.at + 1, first.end - 1};
        skip_space(inside);
        first.at = inside->at;
        skip_value(inside, DEEPEST);
        first.end = inside->at;
    }
    *value = first;
    return true;
}

bool is_text(struct text t, const char *wanted)
{
    size_t n = strlen(wanted);
    return t.at && (size_t)(t.end - t.at) == n && !memcmp(t.at, wanted, n);
}

bool is_string(struct text value, const char *wanted)
{
    return *value.at == '"' && is_text((struct text){value.at + 1, value.end - 1}, wanted);
}

int shown(struct text t)
{
    return t.end - t.at < 60 ? (int)(t.end - t.at) : 60;
}

bool find(struct text object, const char *name, struct text *value)
{
    struct text key;
    if (!take(&object, '{'))
        return false;
    while (next_value(&object, &key, value))
        if (is_text(key, name))
            return true;
    return false;
}

bool whole_number(struct text value, size_t *number)
{
    *number = 0;
    for (const char *c = value.at; c < value.end; c++) {
        if (!isdigit((unsigned char)*c) || *number > SIZE_MAX / 16)
            return false;
        *number = *number * 10 + (size_t)(*c - '0');
    }
    return true;
}

char *unescape(struct text value, size_t *length)
{
    char *plain = malloc((size_t)(value.end - value.at)), *to = plain;
    for (const char *c = value.at + 1; plain && c < value.end - 1; c++) {
        if (*c == '\\' && *++c != '"' && *c != '\\') {
            free(plain);
            return NULL;
        }
        *to++ = *c;
    }
    *length = plain ? (size_t)(to - plain) : 0;
    return plain;
}
