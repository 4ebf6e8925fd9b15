/* The position of a context in spans and regions.
 *
 * To set a context variable makes a new mapping of all of them (1,500 instructions), for it must leave alone the contexts
 * that were copied from this one.  Where none was, the value may as well be changed in place; and whether one was can be
 * seen: a copy shares the mapping, and a mapping made from another one shares what did not change.  So the value is ours
 * alone if nobody else has a reference to anything on the way to it.
 *
 * That way is not Python's to tell, and is known per version; what is not found as expected is set the ordinary way.
 */
#define Py_BUILD_CORE_MODULE
#include "native.h"
#include "internal/pycore_context.h"

typedef struct {
    PyObject_VAR_HEAD
    uint32_t bitmap;
    PyObject *array[1];                              /* key and value; or NULL and a node */
} bitmap_node;
typedef struct {
    PyObject_HEAD
    PyObject *array[32];
    Py_ssize_t count;
} array_node;

static PyObject *variable;
static int32_t hash;                                 /* of the variable, as the mapping has it */
static PyTypeObject *bitmap_type, *array_type;       /* NULL: not found to be what they were */

static inline int ones(uint32_t bits) {
    bits -= bits >> 1 & 0x55555555u;
    bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
    return (int)((((bits + (bits >> 4)) & 0x0F0F0F0Fu) * 0x01010101u) >> 24);
}

static position *changeable(PyObject *context) {
    PyHamtObject *mapping = ((struct _pycontextobject *)context)->ctx_vars;
    if (!mapping || Py_REFCNT(mapping) != 1) return NULL;
    PyObject *node = (PyObject *)mapping->h_root;
    for (int shift = 0; node && shift < 32 && Py_REFCNT(node) == 1; shift += 5) {
        unsigned bit = (uint32_t)hash >> shift & 31;
        if (Py_IS_TYPE(node, array_type)) {
            node = ((array_node *)node)->array[bit];
            continue;
        }
        if (!Py_IS_TYPE(node, bitmap_type)) return NULL;
        bitmap_node *b = (bitmap_node *)node;
        if (!(b->bitmap >> bit & 1)) return NULL;
        int at = 2 * ones(b->bitmap & ((1u << bit) - 1));
        PyObject *key = b->array[at], *value = b->array[at + 1];
        if (key) return key == variable && Py_IS_TYPE(value, &Position_type) && Py_REFCNT(value) == 1 ? (position *)value : NULL;
        node = value;
    }
    return NULL;
}

position *position_here(void) {
    PyObject *here = NULL;
    if (PyContextVar_Get(variable, NULL, &here)) {
        PyErr_Clear();
        return NULL;
    }
    Py_XDECREF(here);                                /* the context has it */
    return (position *)here;
}

static position *new_position(void) {
    position *here = position_here(), *made = NULL;
    Py_XINCREF(here);
    made = PyObject_GC_New(position, &Position_type);
    if (made) {
        for (int kind = 0; kind < KINDS; kind++) made->current[kind] = here ? Py_XNewRef(here->current[kind]) : NULL;
        PyObject_GC_Track(made);
        PyObject *token = PyContextVar_Set(variable, (PyObject *)made);
        Py_DECREF(made);
        if (token) Py_DECREF(token);
        else made = NULL;
    }
    Py_XDECREF(here);
    if (!made) PyErr_Clear();
    return made;
}

/* Where the context is, to be changed before anything else is done.  Borrowed; NULL: there is no memory for one. */
position *position_to_change(void) {
    PyObject *context = PyThreadState_Get()->context;
    position *found = context && bitmap_type ? changeable(context) : NULL;
    return found ? found : new_position();
}

static int position_traverse(position *self, visitproc visit, void *arg) {
    for (int kind = 0; kind < KINDS; kind++) Py_VISIT(self->current[kind]);
    return 0;
}
static int position_clear(position *self) {
    for (int kind = 0; kind < KINDS; kind++) Py_CLEAR(self->current[kind]);
    return 0;
}
static void position_dealloc(position *self) {
    PyObject_GC_UnTrack(self);
    position_clear(self);
    PyObject_GC_Del(self);
}
PyTypeObject Position_type = {PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tracesvc.recorder._native.Position",
                           .tp_doc = "Where a context is in spans and regions.",
                           .tp_basicsize = sizeof(position),
                           .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
                           .tp_traverse = (traverseproc)position_traverse,
                           .tp_clear = (inquiry)position_clear,
                           .tp_dealloc = (destructor)position_dealloc};

/* position_of(context) -> (span or None, region or None): the innermost there. */
static PyObject *position_of(PyObject *module, PyObject *context) {
    (void)module;
    PyObject *found = PyObject_GetItem(context, variable);
    if (!found) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) return NULL;
        PyErr_Clear();
        return Py_BuildValue("OO", Py_None, Py_None);
    }
    position *there = (position *)found;
    PyObject *span = there->current[SPAN], *region = there->current[REGION];
    PyObject *both = Py_BuildValue("OO", span ? span : Py_None, region ? region : Py_None);
    Py_DECREF(found);
    return both;
}

PyMethodDef position_methods[] = {{"position_of", position_of, METH_O, NULL}, {0}};

/* --- whether the way is as it was --------------------------------------------------------------------------------------- */

static PyTypeObject *root_type(PyObject *context, const char *name) {
    PyHamtObject *mapping = ((struct _pycontextobject *)context)->ctx_vars;
    PyTypeObject *type = mapping && mapping->h_root ? Py_TYPE(mapping->h_root) : NULL;
    return type && !strcmp(type->tp_name, name) ? type : NULL;
}

/* In a context of its own: with few variables, with many, copied and not. */
static int try_out(PyObject *context) {
    position *first = new_position(), *found;
    bitmap_type = root_type(context, "hamt_bitmap_node");
    if (!first || !bitmap_type || changeable(context) != first) return 0;
    PyObject *copy = PyContext_Copy(context);
    found = changeable(context);
    Py_XDECREF(copy);
    if (!copy || found || changeable(context) != first) return 0;
    PyObject *others[40] = {0};
    int good = 1;
    for (int i = 0; i < 40 && good; i++) {
        PyObject *token = (others[i] = PyContextVar_New("other", NULL)) ? PyContextVar_Set(others[i], Py_None) : NULL;
        good = token && ((found = changeable(context)) == first || !found);
        Py_XDECREF(token);
    }
    array_type = root_type(context, "hamt_array_node");
    good = good && array_type && changeable(context) == first;
    for (int i = 0; i < 40; i++) Py_XDECREF(others[i]);
    return good;
}

int positions_init(void) {
    variable = PyContextVar_New("tracesvc_position", NULL);
    Py_hash_t whole = variable ? PyObject_Hash(variable) : -1;
    PyObject *context = whole == -1 ? NULL : PyContext_New();
    if (!context) return -1;
    hash = (int32_t)(whole & 0xffffffff) ^ (int32_t)(whole >> 32);
    if (hash == -1) hash = -2;
    if (PyContext_Enter(context)) return -1;
    if (!try_out(context)) {
        bitmap_type = array_type = NULL;
        PyErr_Clear();
    }
    int left = PyContext_Exit(context);
    Py_DECREF(context);
    return left;
}
