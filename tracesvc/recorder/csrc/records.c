/* The buffer of one proc.  See Records in records.py for what each method promises. */
#include "native.h"

enum { SLOTS = 5, MOST_MOVES = 1 << 16 };

void record_drop(const record *r) {
    for (int k = 0; r->objects && k < WIDE; k++)
        if (r->tag[k] == OBJECT) Py_DECREF(r->v[k].o);
}

static void clear_records(record *items, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) record_drop(&items[i]);
}

record *records_grow(Records *self) {
    if (!self->missed) {
        Py_ssize_t room = self->room ? self->room * 2 : 256;
        record *items = PyMem_RawRealloc(self->items, (size_t)room * sizeof(record));
        if (items) {
            self->items = items;
            self->room = room;
            return &self->items[self->n++];
        }
    }
    self->missed++;   /* and so are all until the next take(): what is missing is in one piece, at the end */
    return NULL;
}

/* An argument of extend() as a field.  Borrowed: the caller takes references once nothing can fail any more. */
static void to_value(PyObject *object, value *v, uint8_t *tag) {
    if (PyLong_Check(object)) {
        int overflow;
        v->i = PyLong_AsLongLongAndOverflow(object, &overflow);
        if (!overflow) {
            *tag = INT;
            return;
        }
    }
    else if (PyFloat_CheckExact(object)) {
        v->d = PyFloat_AS_DOUBLE(object);
        *tag = DOUBLE;
        return;
    }
    v->o = object;
    *tag = OBJECT;
}

static PyObject *Records_extend(Records *self, PyObject *row) {
    if (!PyTuple_CheckExact(row) || PyTuple_GET_SIZE(row) != SLOTS || !PyLong_Check(PyTuple_GET_ITEM(row, 0)) ||
        !PyLong_Check(PyTuple_GET_ITEM(row, 1))) {
        PyErr_SetString(PyExc_TypeError, "a record is a tuple (type, time, a, b, c)");
        return NULL;
    }
    long type = PyLong_AsLong(PyTuple_GET_ITEM(row, 0));
    int64_t time = PyLong_AsLongLong(PyTuple_GET_ITEM(row, 1));
    if ((type < 0 || type > 255 || time == -1) && !PyErr_Occurred())
        PyErr_SetString(PyExc_OverflowError, "a type is one byte, a time is not negative");
    if (PyErr_Occurred()) return NULL;
    record made = {.time = time};
    made.type = (uint8_t)type;
    for (int k = 0; k < FIELDS; k++) {
        to_value(PyTuple_GET_ITEM(row, 2 + k), &made.v[k], &made.tag[k]);
        made.objects |= made.tag[k] == OBJECT;
    }
    record *r = records_next(self);
    if (r) {
        *r = made;
        for (int k = 0; k < FIELDS; k++)
            if (made.tag[k] == OBJECT) Py_INCREF(made.v[k].o);
        records_done(self, r);
    }
    Py_RETURN_NONE;
}

static PyObject *from_value(value v, uint8_t tag) {
    if (tag == INT) return PyLong_FromLongLong(v.i);
    if (tag == DOUBLE) return PyFloat_FromDouble(v.d);
    return Py_NewRef(v.o);
}

static PyObject *rest_of(const record *r) {
    int fields = fields_of[r->type];
    PyObject *rest = PyTuple_New(fields - FIELDS + 1), *field;
    for (int k = FIELDS - 1; k < fields && rest; k++) {
        field = from_value(r->v[k], r->tag[k]);
        if (field) PyTuple_SET_ITEM(rest, k - (FIELDS - 1), field);
        else Py_CLEAR(rest);
    }
    return rest;
}

PyObject *record_row(const record *stored) {
    record r = *stored;
    int fields = r.wide ? WIDE : FIELDS;
    for (int k = 0; k < fields; k++)
        if (r.tag[k] == OBJECT) Py_INCREF(r.v[k].o);     /* making a tuple may run a collection, and that anything */
    PyObject *row = PyTuple_New(SLOTS), *field;
    if (row) {
        field = PyLong_FromLong(r.type);
        if (field) PyTuple_SET_ITEM(row, 0, field);
        else Py_CLEAR(row);
    }
    if (row) {
        field = PyLong_FromLongLong(r.time);
        if (field) PyTuple_SET_ITEM(row, 1, field);
        else Py_CLEAR(row);
    }
    for (int k = 0; k < FIELDS && row; k++) {
        field = r.wide && k == FIELDS - 1 ? rest_of(&r) : from_value(r.v[k], r.tag[k]);
        if (field) PyTuple_SET_ITEM(row, 2 + k, field);
        else Py_CLEAR(row);
    }
    for (int k = 0; k < fields; k++)
        if (r.tag[k] == OBJECT) Py_DECREF(r.v[k].o);
    return row;
}

static PyObject *Records_item(Records *self, Py_ssize_t i) {
    if (i >= 0 && i < self->n) return record_row(&self->items[i]);
    PyErr_SetString(PyExc_IndexError, "no such record");
    return NULL;
}

static PyObject *Records_record(Records *self, PyObject *index) {
    Py_ssize_t i = PyLong_AsSsize_t(index);
    return i == -1 && PyErr_Occurred() ? NULL : Records_item(self, i);
}

static Py_ssize_t Records_length(Records *self) { return self->n; }

/* take(n, empty): the first n records move into `empty`, which is. */
static PyObject *Records_take(Records *self, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t n = count == 2 ? PyLong_AsSsize_t(args[0]) : -1;
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (count != 2 || !Py_IS_TYPE(args[1], &Records_type) || args[1] == (PyObject *)self) {
        PyErr_SetString(PyExc_TypeError, "take(n, empty)");
        return NULL;
    }
    Records *block = (Records *)args[1];
    if (n < 0 || n > self->n || block->n) {
        PyErr_SetString(PyExc_ValueError, "not so many records, or no empty buffer for them");
        return NULL;
    }
    Py_ssize_t rest = self->n - n, missed = rest ? 0 : self->missed;    /* they come behind what stays here */
    PyObject *answer = PyLong_FromSsize_t(missed);                      /* first: then nothing can fail any more */
    if (!answer) return NULL;
    if (block->room < rest) {
        record *items = PyMem_RawRealloc(block->items, (size_t)self->room * sizeof(record));
        if (!items) {
            Py_DECREF(answer);
            return PyErr_NoMemory();
        }
        block->items = items;
        block->room = self->room;
    }
    record *items = self->items;
    Py_ssize_t room = self->room;
    if (rest) memcpy(block->items, items + n, (size_t)rest * sizeof(record));
    self->items = block->items, self->room = block->room, self->n = rest;
    block->items = items, block->room = room, block->n = n;
    block->base = self->base;
    self->base += n + missed;
    self->missed -= missed;
    return answer;
}

static PyObject *Records_clear_all(Records *self, PyObject *unused) {
    (void)unused;
    record *items = self->items;
    Py_ssize_t n = self->n, room = self->room;
    self->items = NULL;   /* whatever the last references run sees an empty buffer */
    self->n = self->room = 0;
    clear_records(items, n);
    if (self->items) PyMem_RawFree(items);
    else self->items = items, self->room = room;
    Py_RETURN_NONE;
}

/* in_order(newest): whether no record is older than the one before it, nor the first one than `newest`. */
static PyObject *Records_in_order(Records *self, PyObject *newest) {
    int64_t before = PyLong_AsLongLong(newest);
    if (before == -1 && PyErr_Occurred()) return NULL;
    for (Py_ssize_t i = 0; i < self->n; i++) {
        if (self->items[i].time < before) Py_RETURN_FALSE;
        before = self->items[i].time;
    }
    Py_RETURN_TRUE;
}

/* settle(newest): put them in order of time, none before `newest`; how many of them were given a later time.  Where there is
 * much to move it gives up: in_order() says so. */
static PyObject *Records_settle(Records *self, PyObject *newest) {
    int64_t least = PyLong_AsLongLong(newest), highest = least;
    if (least == -1 && PyErr_Occurred()) return NULL;
    Py_ssize_t moved = 0, work = 0;
    for (Py_ssize_t i = 0; i < self->n; i++) {
        record *r = &self->items[i];
        if (r->time < least) {                       /* see _move_up in records.py */
            r->time = highest;
            moved++;
        }
        else if (r->time > highest) highest = r->time;
    }
    for (Py_ssize_t i = 1; i < self->n && work < MOST_MOVES; i++) {
        Py_ssize_t to = i;                           /* stable, and quick where little is out of place */
        while (to && self->items[to - 1].time > self->items[i].time) to--;
        if (to == i) continue;
        record lagging = self->items[i];
        memmove(&self->items[to + 1], &self->items[to], (size_t)(i - to) * sizeof lagging);
        self->items[to] = lagging;
        work += i - to;
    }
    return PyLong_FromSsize_t(moved);
}

static PyObject *Records_types(Records *self, PyObject *unused) {
    (void)unused;
    PyObject *types = PyBytes_FromStringAndSize(NULL, self->n);
    if (!types) return NULL;
    char *p = PyBytes_AS_STRING(types);
    for (Py_ssize_t i = 0; i < self->n; i++) p[i] = (char)self->items[i].type;
    return types;
}

/* last_of_tasks(changes): task -> index of its last record whose type is marked in `changes` (256 bytes). */
static PyObject *Records_last_of_tasks(Records *self, PyObject *changes) {
    if (!PyBytes_Check(changes) || PyBytes_GET_SIZE(changes) != 256) {
        PyErr_SetString(PyExc_TypeError, "last_of_tasks(256 bytes)");
        return NULL;
    }
    const char *marked = PyBytes_AS_STRING(changes);
    size_t room = 64;            /* of the tasks that were met: open addressing; to ask the dict takes ten times as long */
    while (room < 2 * (size_t)self->n) room *= 2;
    int64_t *met = PyMem_RawCalloc(room, sizeof *met);
    PyObject *last = met ? PyDict_New() : PyErr_NoMemory();
    for (Py_ssize_t i = self->n; last && i-- > 0;) {
        const record *r = &self->items[i];
        if (!marked[r->type] || r->tag[0] != INT) continue;
        int64_t number = r->v[0].i;
        size_t at = (size_t)number * 0x9E3779B97F4A7C15u & (room - 1);
        while (met[at] && met[at] != number) at = (at + 1) & (room - 1);
        if (number && met[at] == number) continue;
        met[at] = number;        /* 0 is no task: it goes by the dict */
        PyObject *task = PyLong_FromLongLong(number), *place = PyLong_FromSsize_t(i);
        if (!task || !place || !PyDict_SetDefault(last, task, place)) Py_CLEAR(last);
        Py_XDECREF(task);
        Py_XDECREF(place);
    }
    PyMem_RawFree(met);
    return last;
}

static PyObject *Records_get_time(Records *self, void *which) {
    if (!self->n) {
        PyErr_SetString(PyExc_IndexError, "there is no record");
        return NULL;
    }
    return PyLong_FromLongLong(self->items[which ? self->n - 1 : 0].time);
}

static PyObject *Records_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Py_ssize_t room = 0;
    static char *names[] = {"room", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n", names, &room)) return NULL;
    Records *self = (Records *)type->tp_alloc(type, 0);
    if (self) self->capacity = PY_SSIZE_T_MAX, self->proc = -1;
    if (!self || room <= 0) return (PyObject *)self;
    self->items = PyMem_RawMalloc((size_t)room * sizeof(record));
    if (!self->items) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->room = room;
    return (PyObject *)self;
}

static int Records_traverse(Records *self, visitproc visit, void *arg) {
    for (Py_ssize_t i = 0; i < self->n; i++)
        for (int k = 0; self->items[i].objects && k < WIDE; k++)
            if (self->items[i].tag[k] == OBJECT) Py_VISIT(self->items[i].v[k].o);
    return 0;
}

static int Records_clear(Records *self) {
    Py_XDECREF(Records_clear_all(self, NULL));
    return 0;
}

static void Records_dealloc(Records *self) {
    PyObject_GC_UnTrack(self);
    Records_clear(self);
    PyMem_RawFree(self->items);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"extend", (PyCFunction)Records_extend, METH_O, NULL},
    {"take", (PyCFunction)(void (*)(void))Records_take, METH_FASTCALL, NULL},
    {"clear", (PyCFunction)Records_clear_all, METH_NOARGS, NULL},
    {"in_order", (PyCFunction)Records_in_order, METH_O, NULL},
    {"settle", (PyCFunction)Records_settle, METH_O, NULL},
    {"types", (PyCFunction)Records_types, METH_NOARGS, NULL},
    {"last_of_tasks", (PyCFunction)Records_last_of_tasks, METH_O, NULL},
    {"record", (PyCFunction)Records_record, METH_O, NULL},
    {"encode", (PyCFunction)(void (*)(void))records_encode, METH_FASTCALL, NULL},
    {0}};
static PyMemberDef members[] = {{"events", T_PYSSIZET, offsetof(Records, n), READONLY, NULL},
                                {"capacity", T_PYSSIZET, offsetof(Records, capacity), 0, NULL},
                                {"running", T_LONGLONG, offsetof(Records, running), 0, NULL},
                                {"proc", T_LONGLONG, offsetof(Records, proc), 0, NULL},
                                {"base", T_LONGLONG, offsetof(Records, base), READONLY, NULL},
                                {"missed", T_PYSSIZET, offsetof(Records, missed), READONLY, NULL},
                                {0}};
static PyGetSetDef getset[] = {{"first_time", (getter)Records_get_time, NULL, NULL, NULL},
                               {"last_time", (getter)Records_get_time, NULL, NULL, (void *)1},
                               {0}};
static PySequenceMethods sequence = {.sq_length = (lenfunc)Records_length, .sq_item = (ssizeargfunc)Records_item};
PyTypeObject Records_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Records",
    .tp_doc = "See tracesvc.recorder.records.Records.",
    .tp_basicsize = sizeof(Records),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Records_new,
    .tp_dealloc = (destructor)Records_dealloc,
    .tp_traverse = (traverseproc)Records_traverse,
    .tp_clear = (inquiry)Records_clear,
    .tp_as_sequence = &sequence,
    .tp_methods = methods,
    .tp_members = members,
    .tp_getset = getset};
