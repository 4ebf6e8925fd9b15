/* A number to two others: open addressing, which closes the gap where something is taken out. */
#include "native.h"

static size_t home(int64_t key, Py_ssize_t room) {
    return ((uint64_t)key * 0x9E3779B97F4A7C15u >> 32) & (size_t)(room - 1);
}

static size_t place(const map *m, int64_t key) {          /* its place, or the empty one where it would be */
    size_t mask = (size_t)(m->room - 1), at = home(key, m->room);
    while (m->items[at].key && m->items[at].key != key) at = (at + 1) & mask;
    return at;
}

pair *map_find(const map *m, int64_t key) {
    if (!m->n) return NULL;
    pair *found = &m->items[place(m, key)];
    return found->key ? found : NULL;
}

pair *map_put(map *m, int64_t key, int64_t a, int64_t b) {
    if (!key) return NULL;
    if (m->n * 2 >= m->room) {
        map before = *m, grown = {NULL, m->n, m->room ? m->room * 2 : 16};
        grown.items = PyMem_RawCalloc((size_t)grown.room, sizeof(pair));
        if (!grown.items) return NULL;
        *m = grown;
        for (Py_ssize_t i = 0; i < before.room; i++)
            if (before.items[i].key) m->items[place(m, before.items[i].key)] = before.items[i];
        PyMem_RawFree(before.items);
    }
    pair *to = &m->items[place(m, key)];
    m->n += !to->key;
    *to = (pair){key, a, b};
    return to;
}

int map_take(map *m, int64_t key, pair *found) {
    if (!m->n) return 0;
    size_t mask = (size_t)(m->room - 1), at = place(m, key), next;
    if (!m->items[at].key) return 0;
    *found = m->items[at];
    m->n--;
    for (next = (at + 1) & mask; m->items[next].key; next = (next + 1) & mask) {
        size_t want = home(m->items[next].key, m->room);
        if (((next - want) & mask) >= ((next - at) & mask)) {
            m->items[at] = m->items[next];
            at = next;
        }
    }
    m->items[at] = (pair){0};
    return 1;
}

void map_clear(map *m) {
    PyMem_RawFree(m->items);
    *m = (map){0};
}
