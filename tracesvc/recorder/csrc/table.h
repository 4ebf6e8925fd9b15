/* What is open, by number: open addressing. A value that is NULL is no entry. */
#ifndef TRACESVC_TABLE_H
#define TRACESVC_TABLE_H
#include "native.h"

typedef struct {
    int64_t key;
    PyObject *value;                     /* owned */
} entry;
typedef struct {
    entry *entries;
    Py_ssize_t n, room;                  /* room: a power of 2, or 0 */
} table;

static inline size_t table_home(const table *t, int64_t key) {
    return ((uint64_t)key * 0x9E3779B97F4A7C15u >> 32) & (size_t)(t->room - 1);
}

static inline entry *table_seek(const table *t, int64_t key) {          /* its place, or the empty one where it would be */
    size_t mask = (size_t)(t->room - 1), at = table_home(t, key);
    while (t->entries[at].value && t->entries[at].key != key) at = (at + 1) & mask;
    return &t->entries[at];
}

/* Where its value is; NULL: it has none. */
static inline PyObject **table_find(const table *t, int64_t key) {
    entry *e = t->n ? table_seek(t, key) : NULL;
    return e && e->value ? &e->value : NULL;
}

/* Where its value is, or is to be put at once, and then there is one more; NULL: no memory. */
static inline PyObject **table_place(table *t, int64_t key) {
    if (t->n * 2 >= t->room) {
        table larger = {NULL, t->n, t->room ? t->room * 2 : 64};
        larger.entries = PyMem_RawCalloc((size_t)larger.room, sizeof(entry));
        if (!larger.entries) return NULL;
        for (Py_ssize_t i = 0; i < t->room; i++)
            if (t->entries[i].value) *table_seek(&larger, t->entries[i].key) = t->entries[i];
        PyMem_RawFree(t->entries);
        *t = larger;
    }
    entry *e = table_seek(t, key);
    if (!e->value) e->key = key, t->n++;
    return &e->value;
}

/* Take the entry out; its value is the caller's, NULL where it had none. */
static inline PyObject *table_take(table *t, int64_t key) {
    size_t mask = (size_t)(t->room - 1);
    entry *e = t->n ? table_seek(t, key) : NULL;
    if (!e || !e->value) return NULL;
    PyObject *value = e->value;
    size_t at = (size_t)(e - t->entries);
    for (size_t next = (at + 1) & mask; t->entries[next].value; next = (next + 1) & mask) {   /* close the gap */
        size_t want = table_home(t, t->entries[next].key);
        if (((next - want) & mask) < ((next - at) & mask)) continue;
        t->entries[at] = t->entries[next];
        at = next;
    }
    t->entries[at].value = NULL;
    t->n--;
    return value;
}

static inline void table_clear(table *t) {
    table before = *t;
    *t = (table){NULL, 0, 0};
    for (Py_ssize_t i = 0; i < before.room; i++) Py_XDECREF(before.entries[i].value);
    PyMem_RawFree(before.entries);
}

#endif
