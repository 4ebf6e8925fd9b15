/* A block of records -> the body of an EVENTS frame, byte for byte what encode_batch() in format/batch.py makes. */
#include "native.h"

typedef struct {
    uint8_t *bytes;
    size_t n, room;
} plane_buffer;

static int planes_reserve(plane_buffer *planes, size_t more) {
    if (planes->n + more <= planes->room) return 0;
    size_t room = (planes->n + more) * 2;
    uint8_t *bytes = PyMem_RawRealloc(planes->bytes, room);
    if (!bytes) {
        PyErr_NoMemory();
        return -1;
    }
    planes->bytes = bytes;
    planes->room = room;
    return 0;
}

/* Append to `row` how the column is stored, and to `planes` what of it has to be: see format/columns.py. */
static int add_column(PyObject *row, plane_buffer *planes, const int64_t *values, Py_ssize_t n) {
    uint64_t first = (uint64_t)values[0], differ = 0;
    for (Py_ssize_t i = 1; i < n; i++) differ |= (uint64_t)values[i] ^ first;
    unsigned mask = 0;
    uint64_t rest = 0;
    for (int k = 0; k < 8; k++) {
        if (!(differ >> (8 * k) & 0xFF)) {
            rest |= first & (uint64_t)0xFF << (8 * k);
            continue;
        }
        mask |= 1u << k;
        if (planes_reserve(planes, (size_t)n)) return -1;
        uint8_t *p = planes->bytes + planes->n;
        for (Py_ssize_t i = 0; i < n; i++) p[i] = (uint8_t)((uint64_t)values[i] >> (8 * k));
        planes->n += (size_t)n;
    }
    PyObject *number = PyLong_FromUnsignedLong(mask);
    int failed = !number || PyList_Append(row, number);
    Py_XDECREF(number);
    if (failed) return -1;
    number = PyLong_FromUnsignedLongLong(rest);
    failed = !number || PyList_Append(row, number);
    Py_XDECREF(number);
    return failed ? -1 : 0;
}

/* The task whose step ran when the block began (0: none), if all its step ends follow from their starts; else -1. */
static int64_t running_at_start(const Records *self) {
    int64_t running = 0, current = 0;
    int before = 0, ends = 0;                         /* 0: no step event yet, 1: a start, 2: an end */
    for (Py_ssize_t i = 0; i < self->n; i++) {
        const record *r = &self->items[i];
        if (r->type == numbers.step_start) {
            if (before == 1) return -1;
            before = 1;
            current = r->v[0].i;
        }
        else if (is_end[r->type]) {
            if (before == 2) return -1;
            if (!before) running = current = r->v[0].i;
            if (r->v[0].i != current) return -1;
            before = 2;
            ends++;
        }
    }
    return ends && running >= 0 ? running : -1;
}

/* Field `k` of a record that has `fields` of them, borrowed; an object that is NULL: an exception is set. */
static value field_of(const record *r, int k, int fields, uint8_t *tag) {
    if (r->wide || fields <= FIELDS || k < FIELDS - 1) {
        *tag = r->tag[k];
        return r->v[k];
    }
    value v = {0};
    PyObject *rest = r->v[FIELDS - 1].o;
    *tag = OBJECT;
    if (r->tag[FIELDS - 1] != OBJECT || !PyTuple_Check(rest) || PyTuple_GET_SIZE(rest) <= k - (FIELDS - 1)) {
        PyErr_SetString(PyExc_TypeError, "the last field of a record is not a tuple of the rest");
        v.o = NULL;
        return v;
    }
    v.o = PyTuple_GET_ITEM(rest, k - (FIELDS - 1));
    return v;
}

static int to_int(value v, uint8_t tag, int64_t *out) {
    if (tag == INT) {
        *out = v.i;
        return 0;
    }
    if (tag == OBJECT && v.o && PyLong_Check(v.o)) {
        *out = PyLong_AsLongLong(v.o);
        return *out == -1 && PyErr_Occurred() ? -1 : 0;
    }
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_OverflowError, "a value is no integer of 64 bits");
    return -1;
}

static int to_double(value v, uint8_t tag, int64_t *out) {
    double number = tag == DOUBLE ? v.d : tag == INT ? (double)v.i : v.o ? PyFloat_AsDouble(v.o) : -1.0;
    if (number == -1.0 && PyErr_Occurred()) return -1;
    memcpy(out, &number, sizeof number);
    return 0;
}

static int to_id(value v, uint8_t tag, PyObject *table, int64_t *out) {
    if (tag == INT && !v.i) {                         /* nothing */
        *out = 0;
        return 0;
    }
    if (tag != OBJECT || !v.o) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "a name or a stack is no number");
        return -1;
    }
    PyObject *number = PyObject_GetItem(table, v.o);
    *out = number ? PyLong_AsLongLong(number) : -1;
    Py_XDECREF(number);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

typedef struct {
    PyObject *strings, *stacks;
    int64_t *values;
    const Py_ssize_t *places;                         /* of the records of one type */
    plane_buffer planes;
} batch;

/* One field of all `n` records of a type. */
static int add_field(const Records *self, batch *b, PyObject *row, PyObject *texts, Py_ssize_t n, int k, int fields,
                     char code) {
    PyObject *list = code == '-' ? PyList_New(n) : NULL;
    const PyObject *last = NULL;
    int64_t last_id = 0;
    if (code == '-' && !list) return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint8_t tag;
        value v = field_of(&self->items[b->places[i]], k, fields, &tag);
        int failed = 0;
        switch (code) {
        case 'q': failed = to_int(v, tag, &b->values[i]); break;
        case 'd': failed = to_double(v, tag, &b->values[i]); break;
        case '-': {
            PyObject *object = tag == OBJECT ? Py_XNewRef(v.o) : tag == INT ? PyLong_FromLongLong(v.i) : PyFloat_FromDouble(v.d);
            failed = !object;
            if (object) PyList_SET_ITEM(list, i, object);
            break;
        }
        default:
            if (tag == OBJECT && v.o && v.o == last) b->values[i] = last_id;
            else {
                failed = to_id(v, tag, code == 's' ? b->strings : b->stacks, &b->values[i]);
                last = tag == OBJECT ? v.o : NULL;
                last_id = b->values[i];
            }
        }
        if (failed) {
            Py_XDECREF(list);
            return -1;
        }
    }
    if (!list) return add_column(row, &b->planes, b->values, n);
    int failed = PyList_Append(texts, list);
    Py_DECREF(list);
    return failed;
}

static int append_new(PyObject *list, PyObject *item) {          /* takes the reference */
    int failed = !item || PyList_Append(list, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

static int add_type(const Records *self, batch *b, PyObject *rows, PyObject *data, uint8_t type, Py_ssize_t n,
                    int64_t running) {
    const char *storage = codes[type];
    if (!storage) {
        PyErr_Format(PyExc_KeyError, "event type %d", type);
        return -1;
    }
    int fields = (int)strlen(storage), from = 0, failed;
    PyObject *row = Py_BuildValue("[in]", type, n), *texts = Py_BuildValue("[i]", type);
    failed = !row || !texts;
    if (!failed && running >= 0 && is_end[type]) {               /* whose step it is, is known from its start */
        failed = append_new(row, PyLong_FromLong(0)) || append_new(row, PyLong_FromLong(0));
        from = 1;
    }
    for (int k = from; k < fields && !failed; k++) failed = add_field(self, b, row, texts, n, k, fields, storage[k]);
    if (!failed) failed = PyList_Append(rows, row);
    if (!failed && PyList_GET_SIZE(texts) > 1) failed = PyList_Append(data, texts);
    Py_XDECREF(row);
    Py_XDECREF(texts);
    return failed ? -1 : 0;
}

/* encode(proc, first, strings, stacks) */
PyObject *records_encode(Records *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 4 || !self->n) {
        PyErr_SetString(PyExc_TypeError, "encode(proc, first, strings, stacks) of a block that is not empty");
        return NULL;
    }
    Py_ssize_t n = self->n, of_type[256] = {0}, next[256], at = 0;
    PyObject *body = NULL, *rows = PyList_New(0), *data = PyList_New(0), *row = NULL, *types = NULL;
    Py_ssize_t *places = PyMem_RawMalloc((size_t)n * sizeof *places);      /* by type, and in order of time */
    batch b = {args[2], args[3], PyMem_RawMalloc((size_t)n * sizeof(int64_t)), places, {NULL, 0, 0}};
    if (!b.values || !places) {
        PyErr_NoMemory();
        goto done;
    }
    types = PyBytes_FromStringAndSize(NULL, n);
    row = Py_BuildValue("[in]", 0, n);
    if (!rows || !data || !row || !types || planes_reserve(&b.planes, (size_t)n * 4)) goto done;
    char *p = PyBytes_AS_STRING(types);
    b.values[0] = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint8_t type = self->items[i].type;
        p[i] = (char)type;
        of_type[type]++;
        if (i) b.values[i] = self->items[i].time - self->items[i - 1].time;
    }
    if (add_column(row, &b.planes, b.values, n) || PyList_Append(rows, row)) goto done;
    int64_t running = running_at_start(self);
    for (int type = 0; type < 256; type++) next[type] = at, at += of_type[type];
    for (Py_ssize_t i = 0; i < n; i++) places[next[(uint8_t)p[i]]++] = i;
    for (int type = 0; type < 256; type++) {
        if (!of_type[type]) continue;
        if (add_type(self, &b, rows, data, (uint8_t)type, of_type[type], running)) goto done;
        b.places += of_type[type];
    }
    PyObject *planes = PyBytes_FromStringAndSize((const char *)b.planes.bytes, (Py_ssize_t)b.planes.n);
    PyObject *begun = running >= 0 ? PyLong_FromLongLong(running) : Py_NewRef(Py_None);
    if (planes && begun)
        body = Py_BuildValue("[OOLOOOOO]", args[0], args[1], (long long)self->items[0].time, types, rows, planes, data, begun);
    Py_XDECREF(planes);
    Py_XDECREF(begun);
done:
    PyMem_RawFree(b.values);
    PyMem_RawFree(places);
    PyMem_RawFree(b.planes.bytes);
    Py_XDECREF(rows);
    Py_XDECREF(data);
    Py_XDECREF(row);
    Py_XDECREF(types);
    return body;
}
