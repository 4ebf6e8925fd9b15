/* Where a task is suspended: the chain of what it awaits, as (code, instruction) pairs, innermost first.
 *
 * A coroutine keeps its frame in itself.  To ask for `cr_frame` would make a frame object of each, which stays for as
 * long as the coroutine lives; so its code and instruction are read from where CPython has them, per version.
 */
#define Py_BUILD_CORE_MODULE
#include "native.h"
#include "internal/pycore_frame.h"

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030E0000
#error "how a coroutine keeps its frame is known for CPython 3.11 to 3.13; others run on the Python twin"
#endif

enum { MAX_FRAMES = 64, MAX_CHAIN = 4096, STACKS = 2048 };
typedef struct {
    PyCodeObject *code;      /* in a chain owned: what looks further may run anything, and a code is gone with its function */
    int instruction;
} place;
typedef struct {
    PyObject *stack;         /* owned, and it owns the codes */
    uint64_t hash;
    int n;
    place *places;
} known;

static known stacks[STACKS];
static PyObject *make_stack, *beyond;                     /* Python functions, see recorder/stacks.py */
static PyObject *str_cr_await, *str_gi_yieldfrom, *str_ag_await;

static PyCodeObject *frame_code(const _PyInterpreterFrame *frame) {
#if PY_VERSION_HEX >= 0x030D0000
    return _PyFrame_GetCode((_PyInterpreterFrame *)frame);
#else
    return frame->f_code;
#endif
}

PyObject *code_of(PyObject *coroutine) {
    PyGenObject *generator = (PyGenObject *)coroutine;
    if (!PyCoro_CheckExact(coroutine) || generator->gi_frame_state >= FRAME_COMPLETED) return NULL;
    return (PyObject *)frame_code((_PyInterpreterFrame *)generator->gi_iframe);
}

/* What `awaitable` awaits (new reference or NULL), and where it stands. */
static PyObject *further(PyObject *awaitable, place *here) {
    here->code = NULL;
    PyObject *name = PyCoro_CheckExact(awaitable)       ? str_cr_await
                     : PyGen_CheckExact(awaitable)      ? str_gi_yieldfrom
                     : PyAsyncGen_CheckExact(awaitable) ? str_ag_await
                                                        : NULL;
    if (!name) return PyObject_CallOneArg(beyond, awaitable);
    PyGenObject *generator = (PyGenObject *)awaitable;
    if (generator->gi_frame_state >= FRAME_COMPLETED) return Py_NewRef(Py_None);
    _PyInterpreterFrame *frame = (_PyInterpreterFrame *)generator->gi_iframe;
    here->code = (PyCodeObject *)Py_NewRef(frame_code(frame));
    here->instruction = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
    return PyObject_GetAttr(awaitable, name);
}

int awaits_within(PyObject *coroutine, PyObject *code, int frames) {
    int n = 0, last = -1;
    PyObject *awaitable = Py_NewRef(coroutine);
    for (int i = 0; awaitable && awaitable != Py_None && i < MAX_CHAIN; i++) {
        place here;
        PyObject *next = further(awaitable, &here);
        if (here.code && (PyObject *)here.code == code) last = n;
        n += here.code != NULL;
        Py_XDECREF(here.code);
        Py_SETREF(awaitable, next);
    }
    if (PyErr_Occurred()) PyErr_Clear();
    Py_XDECREF(awaitable);
    return last >= 0 && n - last <= frames;
}

static PyObject *new_stack(const place *places, int n) {
    PyObject *rows = PyTuple_New(n), *stack = NULL;
    for (int i = 0; rows && i < n; i++) {
        PyObject *row = Py_BuildValue("Oi", places[i].code, places[i].instruction);
        if (row) PyTuple_SET_ITEM(rows, i, row);
        else Py_CLEAR(rows);
    }
    if (rows) stack = PyObject_CallOneArg(make_stack, rows);
    Py_XDECREF(rows);
    return stack;
}

/* The `Stack` of these places, made where it was not seen lately.  New reference; NULL: none, no exception set. */
static PyObject *interned(const place *places, int kept, uint64_t hash) {
    known *k = &stacks[hash >> 32 & (STACKS - 1)];
    if (k->stack && k->hash == hash && k->n == kept) {
        int same = 1;
        for (int i = 0; i < kept && same; i++)
            same = k->places[i].code == places[i].code && k->places[i].instruction == places[i].instruction;
        if (same) return Py_NewRef(k->stack);
    }
    PyObject *stack = new_stack(places, kept);
    if (!stack) {
        PyErr_WriteUnraisable(make_stack);
        return NULL;
    }
    place *copy = PyMem_RawMalloc((size_t)kept * sizeof *copy);
    if (copy) {
        memcpy(copy, places, (size_t)kept * sizeof *copy);
        PyObject *before = k->stack;
        PyMem_RawFree(k->places);
        *k = (known){Py_NewRef(stack), hash, kept, copy};
        Py_XDECREF(before);
    }
    return stack;
}

PyObject *stack_of(PyObject *coroutine) {
    place chain[MAX_FRAMES];                              /* a ring: the innermost ones are what is kept */
    int n = 0;
    if (!coroutine || !make_stack) return NULL;
    PyObject *awaitable = Py_NewRef(coroutine);
    for (int i = 0; awaitable && awaitable != Py_None && i < MAX_CHAIN; i++) {
        place here;
        PyObject *next = further(awaitable, &here);
        if (here.code) {
            if (n >= MAX_FRAMES) Py_DECREF(chain[n % MAX_FRAMES].code);
            chain[n++ % MAX_FRAMES] = here;
        }
        Py_SETREF(awaitable, next);
    }
    if (PyErr_Occurred()) PyErr_Clear();                  /* a strange awaitable: what is outside of it is true as well */
    Py_XDECREF(awaitable);
    int kept = n < MAX_FRAMES ? n : MAX_FRAMES;
    if (!kept) return NULL;
    place places[MAX_FRAMES];
    uint64_t hash = (uint64_t)kept;
    for (int i = 0; i < kept; i++) {
        places[i] = chain[(n - 1 - i) % MAX_FRAMES];
        hash = (hash ^ (uintptr_t)places[i].code >> 4 ^ (uint64_t)places[i].instruction << 40) * 0x9E3779B97F4A7C15u;
    }
    PyObject *stack = interned(places, kept, hash);
    for (int i = 0; i < kept; i++) Py_DECREF(places[i].code);
    return stack;
}

/* stacks(make, beyond) */
static PyObject *set_functions(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *make, *past;
    if (!PyArg_ParseTuple(args, "OO", &make, &past)) return NULL;
    Py_XSETREF(make_stack, Py_NewRef(make));
    Py_XSETREF(beyond, Py_NewRef(past));
    Py_RETURN_NONE;
}

static PyObject *Stack_of(PyObject *module, PyObject *coroutine) {
    (void)module;
    PyObject *stack = stack_of(coroutine);
    if (stack) return stack;
    Py_RETURN_NONE;
}

PyMethodDef stack_methods[] = {{"stacks", set_functions, METH_VARARGS, NULL}, {"stack_of", Stack_of, METH_O, NULL}, {0}};

int stacks_init(void) {
    str_cr_await = PyUnicode_InternFromString("cr_await");
    str_gi_yieldfrom = PyUnicode_InternFromString("gi_yieldfrom");
    str_ag_await = PyUnicode_InternFromString("ag_await");
    return str_cr_await && str_gi_yieldfrom && str_ag_await ? 0 : -1;
}
