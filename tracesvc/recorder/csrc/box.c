/* The black box: a copy of every record in memory that outlives the process.  See box.py, and format/box.py for what lies
 * where; the twin in Python is Box.keep.
 *
 * A record is copied when it is whole, and its stamp is stored last; what it has of objects lies in the text area before
 * that.  One box per process.  A forked child has none: it is told so before any of its code runs.
 */
#include "native.h"
#include <pthread.h>
#include <unistd.h>

enum { HASHED = 1024, DEEP = 8, WORDS = sizeof(record) / 8 };
enum { TEXT_END = 8 };                   /* of the words at the beginning of the box: the one that we change */
enum { MAX_BLOB_PART = 4 };              /* a blob has at most this part of the text area */

static struct {
    Py_buffer view;
    uint64_t *words, *journal;           /* the beginning of the box; slots of WORDS + 1 words each */
    uint8_t *text;
    uint64_t slots, text_size, text_end;
    uint64_t at;                         /* the slot that is next */
    int fd;                              /* of the file, whose lock says that we live */
} box = {.fd = -1};
int box_open;

/* Where a text, or a stack, was written last: names come again and again. */
static struct {
    PyObject *object;                    /* owned */
    uint64_t place;
} written[HASHED];

static PyObject *str_frames;

/* --- msgpack --------------------------------------------------------------------------------------------------------- */

static struct {
    uint8_t *bytes;
    size_t n, room;
    int full;
} scratch;

static uint8_t *more(size_t n) {
    if (scratch.n + n > scratch.room) {
        size_t room = (scratch.n + n) * 2;
        uint8_t *bytes = PyMem_RawRealloc(scratch.bytes, room);
        if (!bytes) {
            scratch.full = 1;
            return NULL;
        }
        scratch.bytes = bytes;
        scratch.room = room;
    }
    scratch.n += n;
    return scratch.bytes + scratch.n - n;
}

static void put(uint8_t head, uint64_t number, int size) {       /* big-endian */
    uint8_t *p = more((size_t)size + 1);
    if (!p) return;
    *p++ = head;
    while (size--) *p++ = (uint8_t)(number >> (8 * size));
}

static void put_bytes(const void *bytes, size_t n) {
    uint8_t *p = more(n);
    if (p) memcpy(p, bytes, n);
}

static void put_nil(void) { put(0xC0, 0, 0); }

static void put_int(long long number) {
    if (number >= 0 && number < 128) put((uint8_t)number, 0, 0);
    else if (number >= INT16_MIN && number <= INT16_MAX) put(0xD1, (uint64_t)number, 2);
    else if (number >= INT32_MIN && number <= INT32_MAX) put(0xD2, (uint64_t)number, 4);
    else put(0xD3, (uint64_t)number, 8);
}

/* The head of an array or a map: `few` with up to 15 elements. */
static void put_count(uint8_t few, uint8_t many, Py_ssize_t n) {
    if (n < 16) put((uint8_t)(few | n), 0, 0);
    else put(many, (uint64_t)n, 4);
}

static void put_text(PyObject *text) {
    Py_ssize_t n;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &n);
    if (!utf8) {                                                 /* it has a surrogate by itself, or there is no memory */
        PyErr_Clear();
        utf8 = "", n = 0;
    }
    if (n < 32) put((uint8_t)(0xA0 | n), 0, 0);
    else put(0xDB, (uint64_t)n, 4);
    put_bytes(utf8, (size_t)n);
}

/* Runs no code of Python's: only types that are exactly those of the language are looked into. */
static void put_object(PyObject *object, int deep) {
    if (PyUnicode_CheckExact(object)) put_text(object);
    else if (PyBool_Check(object)) put(object == Py_True ? 0xC3 : 0xC2, 0, 0);
    else if (PyLong_Check(object)) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
        if (!overflow) put_int(number);
        else {
            unsigned long long large = overflow > 0 ? PyLong_AsUnsignedLongLong(object) : (unsigned long long)-1;
            if (large == (unsigned long long)-1 && (overflow < 0 || PyErr_Occurred())) {
                PyErr_Clear();
                put_nil();
            }
            else put(0xCF, large, 8);
        }
    }
    else if (PyFloat_CheckExact(object)) {
        double number = PyFloat_AS_DOUBLE(object);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        put(0xCB, bits, 8);
    }
    else if (PyBytes_CheckExact(object)) {
        put(0xC6, (uint64_t)PyBytes_GET_SIZE(object), 4);
        put_bytes(PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object));
    }
    else if (PyTuple_CheckExact(object) && deep) {
        put_count(0x90, 0xDD, PyTuple_GET_SIZE(object));
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); i++) put_object(PyTuple_GET_ITEM(object, i), deep - 1);
    }
    else if (PyDict_CheckExact(object) && deep) {
        PyObject *key, *value;
        Py_ssize_t at = 0;
        put_count(0x80, 0xDF, PyDict_GET_SIZE(object));
        while (PyDict_Next(object, &at, &key, &value)) {
            put_object(key, deep - 1);
            put_object(value, deep - 1);
        }
    }
    else put_nil();
}

/* --- the box --------------------------------------------------------------------------------------------------------- */

#define IN_ORDER() __atomic_thread_fence(__ATOMIC_RELEASE)       /* whoever looks after our death sees it so */

/* Into the text area; where it lies there, 0: nowhere. */
static uint64_t put_blob(PyObject *object) {
    scratch.n = 0;
    scratch.full = 0;
    put_object(object, DEEP);
    uint64_t size = scratch.n + 4, place = box.text_end;
    if (scratch.full || size > box.text_size / MAX_BLOB_PART) return 0;
    uint64_t in_area = place % box.text_size;
    if (in_area + size > box.text_size) place += box.text_size - in_area;      /* not across the end */
    box.text_end = (place + size + 7) & ~(uint64_t)7;
    box.words[TEXT_END] = box.text_end;                          /* what lay there before is none any more */
    IN_ORDER();
    uint8_t *p = box.text + place % box.text_size;
    uint32_t length = (uint32_t)scratch.n;
    memcpy(p, &length, 4);
    memcpy(p + 4, scratch.bytes, scratch.n);
    return place;
}

static uint64_t put_cached(PyObject *key, PyObject *object, PyObject **released) {
    uint64_t at = ((uintptr_t)key >> 4) % HASHED;
    if (written[at].object == key && box.text_end - written[at].place < box.text_size / 4) return written[at].place;
    uint64_t place = put_blob(object);
    *released = written[at].object;                              /* its end may run anything: not yet */
    written[at].object = Py_NewRef(key);
    written[at].place = place;
    return place;
}

static void put_slot(uint64_t stamp, const record *r) {
    uint64_t *slot = box.journal + box.at * (WORDS + 1);
    if (++box.at == box.slots) box.at = 0;
    *slot = 0;
    IN_ORDER();
    memcpy(slot + 1, r, sizeof *r);
    IN_ORDER();
    *slot = stamp;
}

/* What a field is to be written as: a stack as its frames, in Python (new reference). */
static PyObject *plain_of(PyObject *object) {
    if (PyUnicode_Check(object) || PyTuple_Check(object) || PyDict_Check(object) || object == Py_None || PyLong_Check(object) ||
        PyBytes_Check(object))
        return Py_NewRef(object);
    PyObject *type, *error, *traceback, *frames;
    PyErr_Fetch(&type, &error, &traceback);
    frames = PyObject_GetAttr(object, str_frames);
    if (!frames) PyErr_Clear();
    PyErr_Restore(type, error, traceback);
    return frames ? frames : Py_NewRef(Py_None);
}

/* The tuple of the rest of a record may hold a stack: there is no such event, so it is not looked for. */
void box_keep(Records *self, const record *given) {
    if (self->proc < 0) return;
    uint64_t index = (uint64_t)self->base + (uint64_t)(given - self->items);
    uint64_t stamp = ((uint64_t)self->proc << 40 | index) + 1;
    if (!given->objects) {
        put_slot(stamp, given);
        return;
    }
    record r = *given;                                           /* the buffer may move while Python runs */
    PyObject *keys[WIDE] = {0}, *objects[WIDE] = {0}, *released[WIDE] = {0};
    int fields = r.wide ? WIDE : FIELDS;
    for (int k = 0; k < fields; k++)
        if (r.tag[k] == OBJECT) keys[k] = Py_NewRef(r.v[k].o);
    for (int k = 0; k < fields; k++)
        if (keys[k]) objects[k] = plain_of(keys[k]);
    if (box_open) {
        for (int k = 0; k < fields; k++)
            if (keys[k]) {
                int again = PyUnicode_CheckExact(keys[k]) || objects[k] != keys[k];
                r.v[k].i = (int64_t)(again ? put_cached(keys[k], objects[k], &released[k]) : put_blob(objects[k]));
            }
        put_slot(stamp, &r);
    }
    for (int k = 0; k < fields; k++) {
        Py_XDECREF(keys[k]);
        Py_XDECREF(objects[k]);
        Py_XDECREF(released[k]);
    }
}

static void close_box(void) {
    box_open = 0;
    for (int i = 0; i < HASHED; i++) Py_CLEAR(written[i].object);
    if (box.words) PyBuffer_Release(&box.view);
    box.words = NULL;
    box.fd = -1;
}

/* open_box(a writable buffer, laid out as format/box.py has it; its file) */
static PyObject *open_box(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer view;
    int fd;
    if (!PyArg_ParseTuple(args, "w*i", &view, &fd)) return NULL;
    close_box();
    uint64_t *words = view.buf;
    if (view.len < 4096 || words[2] + words[3] * sizeof(uint64_t) * (WORDS + 1) > (uint64_t)view.len || !words[3] ||
        words[4] + words[5] > (uint64_t)view.len || words[5] < 1 << 16) {
        PyBuffer_Release(&view);
        return PyErr_Format(PyExc_ValueError, "this is no box");
    }
    box.view = view;
    box.words = words;
    box.journal = words + words[2] / 8;
    box.slots = words[3];
    box.text = (uint8_t *)view.buf + words[4];
    box.text_size = words[5];
    box.text_end = words[TEXT_END];
    box.at = 0;
    box.fd = fd;
    box_open = 1;
    Py_RETURN_NONE;
}

static PyObject *Close_box(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    close_box();
    Py_RETURN_NONE;
}

/* In a forked child, before anything else: the box is the parent's, and so is the lock, which must not outlive it. */
static void in_child(void) {
    if (box_open) close(box.fd);
    box_open = 0;
}

PyMethodDef box_methods[] = {{"open_box", open_box, METH_VARARGS, NULL}, {"close_box", Close_box, METH_NOARGS, NULL}, {0}};

int box_init(void) {
    if (pthread_atfork(NULL, NULL, in_child)) return -1;
    str_frames = PyUnicode_InternFromString("frames");
    return str_frames ? 0 : -1;
}
