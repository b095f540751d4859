/* Counts the calls of malloc and its kin in a process that this library is preloaded into.
 *
 * Each call is handed on to the allocator that comes next. While dlsym looks for that one it may
 * allocate itself; such memory comes from a small buffer and is never given back. Memory that a
 * program maps by itself, or that an allocator of its own hands out, is not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static unsigned long long calls;

unsigned long long allocations_counted(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }

static void count(void) { __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED); }

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_memalign)(size_t, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void *(*next_aligned_alloc)(size_t, size_t);
static void (*next_free)(void *);

static char early[16384] __attribute__((aligned(64)));
static size_t early_used;

static int is_early(const void *p) {
    return (const char *)p >= early && (const char *)p < early + sizeof early;
}

/* Zeroed, because the buffer is static and every byte of it is handed out once. */
static void *from_early(size_t size) {
    size_t rounded = (size + 63) & ~(size_t)63;
    if (rounded < size || rounded > sizeof early - early_used) {
        errno = ENOMEM;
        return NULL;
    }
    early_used += rounded;
    return early + early_used - rounded;
}

static void find(void *pointer, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(pointer, &found, sizeof found);
}

/* Whether the allocators that come next are known. Runs first before there is a second thread. */
static int ready(void) {
    static int state; /* 0 at first, 1 while dlsym runs, 2 when all are known */
    if (state == 0) {
        state = 1;
        find(&next_free, "free");
        find(&next_realloc, "realloc");
        find(&next_memalign, "memalign");
        find(&next_posix_memalign, "posix_memalign");
        find(&next_aligned_alloc, "aligned_alloc");
        find(&next_calloc, "calloc");
        find(&next_malloc, "malloc");
        state = 2;
    }
    return state == 2;
}

__attribute__((constructor)) static void begin(void) { ready(); }

void *malloc(size_t size) {
    count();
    return ready() ? next_malloc(size) : from_early(size);
}

void *calloc(size_t many, size_t size) {
    count();
    if (ready()) return next_calloc(many, size);
    if (size && many > (size_t)-1 / size) {
        errno = ENOMEM;
        return NULL;
    }
    return from_early(many * size);
}

void *realloc(void *old, size_t size) {
    void *new;
    count();
    if (!is_early(old)) return ready() ? next_realloc(old, size) : from_early(size);
    new = ready() ? next_malloc(size) : from_early(size);
    if (new) {
        size_t left = (size_t)(early + sizeof early - (const char *)old);
        memmove(new, old, size < left ? size : left);
    }
    return new;
}

void *memalign(size_t alignment, size_t size) {
    count();
    return ready() ? next_memalign(alignment, size) : from_early(size);
}

int posix_memalign(void **place, size_t alignment, size_t size) {
    count();
    if (ready()) return next_posix_memalign(place, alignment, size);
    *place = from_early(size);
    return *place ? 0 : ENOMEM;
}

void *aligned_alloc(size_t alignment, size_t size) {
    count();
    return ready() ? next_aligned_alloc(alignment, size) : from_early(size);
}

void free(void *p) {
    if (!is_early(p) && ready()) next_free(p);
}
