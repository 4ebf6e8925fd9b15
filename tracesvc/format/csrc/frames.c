/* Frames, looked at without taking them apart: checksums, headers, and what an EVENTS frame says in a few words.
 *
 * Everything that comes from a file or from the network is checked here before it is used as a place or a length.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* --- CRC-32, as zlib's ----------------------------------------------------------------------------------------------- */

static uint32_t table[8][256];

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        table[0][i] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

/* Eight bytes at a time, each through a table of its own.  `crc` is inverted, here and below. */
static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t a = crc ^ (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = table[7][a & 255] ^ table[6][a >> 8 & 255] ^ table[5][a >> 16 & 255] ^ table[4][a >> 24] ^
              table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    while (n--) crc = crc >> 8 ^ table[0][(crc ^ *p++) & 255];
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define FOLDING 1

#define FOLD(x, k, next) \
    _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)), next)

/* By carry-less multiplication, 64 bytes at a time (V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using
 * PCLMULQDQ Instruction", Intel 2009).  n >= 64 and a multiple of 16.  The constants are powers of x modulo the polynomial,
 * bit-reflected. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t by_folding(uint32_t crc, const uint8_t *p, size_t n) {
    const __m128i by64 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4), by16 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
    const __m128i by8 = _mm_set_epi64x(0, 0x163CD6124), barrett = _mm_set_epi64x(0x1F7011641, 0x1DB710641);
    const __m128i low = _mm_set_epi32(0, -1, 0, -1), *v = (const __m128i *)p;
    __m128i a = _mm_xor_si128(_mm_loadu_si128(v), _mm_cvtsi32_si128((int)crc));
    __m128i b = _mm_loadu_si128(v + 1), c = _mm_loadu_si128(v + 2), d = _mm_loadu_si128(v + 3);
    for (v += 4, n -= 64; n >= 64; v += 4, n -= 64) {
        a = FOLD(a, by64, _mm_loadu_si128(v));
        b = FOLD(b, by64, _mm_loadu_si128(v + 1));
        c = FOLD(c, by64, _mm_loadu_si128(v + 2));
        d = FOLD(d, by64, _mm_loadu_si128(v + 3));
    }
    a = FOLD(a, by16, b);
    a = FOLD(a, by16, c);
    a = FOLD(a, by16, d);
    for (; n; v++, n -= 16) a = FOLD(a, by16, _mm_loadu_si128(v));
    a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by16, 0x10));
    a = _mm_xor_si128(_mm_srli_si128(a, 4), _mm_clmulepi64_si128(_mm_and_si128(a, low), by8, 0x00));
    b = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(a, low), barrett, 0x10), low);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(a, _mm_clmulepi64_si128(b, barrett, 0x00)), 1);
}
static int can_fold;
#endif

static uint32_t crc32_of(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
#ifdef FOLDING
    if (can_fold && n >= 64) {
        size_t most = n & ~(size_t)15;
        crc = by_folding(crc, p, most);
        p += most;
        n -= most;
    }
#endif
    return ~by_table(crc, p, n);
}

/* crc32(data, value=0, fold=True): as `zlib.crc32`; `fold`: as quickly as this processor can. */
static PyObject *crc32_(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer data;
    unsigned int value = 0;
    int fold = 1;
    if (!PyArg_ParseTuple(args, "y*|Ip", &data, &value, &fold)) return NULL;
    value = fold ? crc32_of(value, data.buf, (size_t)data.len) : ~by_table(~value, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(value);
}

/* --- the body of an EVENTS frame, looked at without taking it apart ------------------------------------------------- */

typedef struct {
    const uint8_t *p, *end;
} cursor;

static uint64_t big_endian(const uint8_t *p, int n) {
    uint64_t value = 0;
    while (n--) value = value << 8 | *p++;
    return value;
}

/* The head of one msgpack value: what it is ('i' a number not negative, 'n' nil, 'b' bin, 'a' array, 'm' map, '-' another
 * scalar, 0 none, or an extension, which is nothing of ours) and its value, length or number of elements; the cursor
 * stands behind the head, or behind a scalar. */
static char head(cursor *c, uint64_t *value) {
    static const struct {
        char what;
        uint8_t size, skip;      /* bytes of the value or length; bytes of a scalar */
    } kinds[32] = {              /* of the bytes C0 to DF */
        {'n', 0, 0}, {0, 0, 0},   {'-', 0, 0}, {'-', 0, 0}, {'b', 1, 0}, {'b', 2, 0}, {'b', 4, 0}, {0, 0, 0},
        {0, 0, 0},   {0, 0, 0},   {'-', 0, 4}, {'-', 0, 8}, {'i', 1, 0}, {'i', 2, 0}, {'i', 4, 0}, {'i', 8, 0},
        {'-', 0, 1}, {'-', 0, 2}, {'-', 0, 4}, {'-', 0, 8}, {0, 0, 0},   {0, 0, 0},   {0, 0, 0},   {0, 0, 0},
        {0, 0, 0},   {'s', 1, 0}, {'s', 2, 0}, {'s', 4, 0}, {'a', 2, 0}, {'a', 4, 0}, {'m', 2, 0}, {'m', 4, 0}};
    if (c->p >= c->end) return 0;
    uint8_t byte = *c->p++;
    *value = 0;
    if (byte < 0x80) return *value = byte, 'i';
    if (byte >= 0xE0) return '-';
    if (byte < 0x90) return *value = byte & 15, 'm';
    if (byte < 0xA0) return *value = byte & 15, 'a';
    char what = byte < 0xC0 ? 's' : kinds[byte - 0xC0].what;
    if (byte < 0xC0) *value = byte & 31;
    else {
        int size = kinds[byte - 0xC0].size, skip = kinds[byte - 0xC0].skip;
        if (c->end - c->p < size + skip) return 0;
        *value = big_endian(c->p, size);
        c->p += size + skip;
    }
    if (what == 'b' || what == 's') {
        if ((uint64_t)(c->end - c->p) < *value) return 0;
        for (uint64_t i = 0; what == 's' && i < *value; i++)
            if (c->p[i] & 0x80) return 0;            /* is it UTF-8? the same */
        c->p += *value;
        return what == 'b' ? 'b' : '-';
    }
    return what;
}

/* Past `n` values and all that is in them; 0 if they are not whole, or nested too deep. */
static int pass(cursor *c, uint64_t n, int depth) {
    uint64_t inner;
    while (n--) {
        char what = head(c, &inner);
        if (!what) return 0;
        if (what != 'a' && what != 'm') continue;
        if (depth <= 0 || inner > (uint64_t)(c->end - c->p)) return 0;
        if (what == 'a' && !pass(c, inner, depth - 1)) return 0;
        for (uint64_t i = 0, key; what == 'm' && i < inner; i++) {
            char kind = head(c, &key);
            if (!kind || kind == 'a' || kind == 'm' || !pass(c, 1, depth - 1)) return 0;
        }
    }
    return 1;
}

static int pass_rows(cursor *c, uint64_t rows) {              /* arrays of numbers */
    uint64_t n, value;
    while (rows--) {
        if (head(c, &n) != 'a') return 0;
        while (n--)
            if (head(c, &value) != 'i') return 0;
    }
    return 1;
}

typedef struct {
    uint64_t proc, first, count;
} seen;

/* What a body says that is as it should be in kind and size; else 0. */
static int look(const uint8_t *body, Py_ssize_t size, seen *found) {
    cursor c = {body, body + size};
    uint64_t n, t0, rows, planes, data, running;
    const uint64_t bound = (uint64_t)1 << 63;
    char last;
    return head(&c, &n) == 'a' && n >= 8 && head(&c, &found->proc) == 'i' && found->proc < bound &&
           head(&c, &found->first) == 'i' && found->first < bound >> 1 && head(&c, &t0) == 'i' && t0 < bound &&
           head(&c, &found->count) == 'b' && found->count > 0 && found->count <= 1 << 16 && head(&c, &rows) == 'a' &&
           pass_rows(&c, rows) && head(&c, &planes) == 'b' && head(&c, &data) == 'a' && pass(&c, data, 32) &&
           ((last = head(&c, &running)) == 'n' || (last == 'i' && running < bound)) && pass(&c, n - 8, 32) &&
           c.p == c.end;
}

/* glance(body) -> (proc, first, number of events) of a body that is as it should be in kind and size; else None. */
static PyObject *glance(PyObject *module, PyObject *body) {
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)) return NULL;
    seen found;
    int good = look(view.buf, view.len, &found);
    PyBuffer_Release(&view);
    if (!good) Py_RETURN_NONE;
    return Py_BuildValue("KKK", (unsigned long long)found.proc, (unsigned long long)found.first,
                         (unsigned long long)found.count);
}

/* --- the frames at the beginning of some bytes ----------------------------------------------------------------------- */

#define HEADER 23

static int add(PyObject *list, int kind, int flags, uint32_t number, uint32_t last, Py_ssize_t start, Py_ssize_t end,
               unsigned frames, const seen *what) {
    PyObject *row = what ? Py_BuildValue("iiIInnI(KKK)", kind, flags, number, last, start, end, frames,
                                         (unsigned long long)what->proc, (unsigned long long)what->first,
                                         (unsigned long long)what->count)
                         : Py_BuildValue("iiIInnIO", kind, flags, number, last, start, end, frames, Py_None);
    int bad = !row || PyList_Append(list, row);
    Py_XDECREF(row);
    return bad ? -1 : 0;
}

/* walk(data, events, largest) -> ([(kind, flags, number, last, start, end, frames, glance), ...], why)
 *
 * The whole frames at the beginning of `data` whose checksums are right.  `events` is the kind of EVENTS frames: those that
 * follow one another in number, proc and sequence are one row, with the first and the last frame's number.  `largest`:
 * bytes of a frame, at most.  `why` nothing follows: 0 the next frame is not whole, or there is none; 1 its header is no
 * header; 2 its checksum is wrong. */
static PyObject *walk(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer data;
    int events, why = 0, bad = 0;
    Py_ssize_t largest;
    if (!PyArg_ParseTuple(args, "y*in", &data, &events, &largest)) return NULL;
    PyObject *rows = PyList_New(0);
    const uint8_t *begin = data.buf, *p = begin, *end = begin + data.len;
    seen run = {0};
    unsigned frames = 0;                                     /* in the run that is open */
    uint32_t number = 0, last = 0;
    const uint8_t *from = p;
    while (rows && !bad && end - p >= HEADER) {
        uint64_t length = big_endian(p + 19, 4);
        why = memcmp(p, "\x96\xa4tsvc", 6) || p[6] > 0x7F || p[7] > 0x7F || p[8] != 0xCE || p[13] != 0xCE ||
              p[18] != 0xC6 || (Py_ssize_t)length > largest - HEADER;
        if (why || (uint64_t)(end - p) < HEADER + length) break;
        uint32_t this = (uint32_t)big_endian(p + 9, 4), crc = crc32_of(0, p + 6, 7);
        if (crc32_of(crc, p + 18, (size_t)length + 5) != big_endian(p + 14, 4)) {
            why = 2;
            break;
        }
        seen found;
        int looked = p[6] == events && !p[7] && look(p + HEADER, (Py_ssize_t)length, &found);
        if (frames && !(looked && this > last && found.proc == run.proc && found.first == run.first + run.count)) {
            bad = add(rows, events, 0, number, last, from - begin, p - begin, frames, &run);
            frames = 0;
        }
        const uint8_t *next = p + HEADER + length;
        if (bad) break;
        if (!looked) bad = add(rows, p[6], p[7], this, this, p - begin, next - begin, 1, NULL);
        else if (frames++) run.count += found.count;
        else run = found, from = p, number = this;
        last = this;
        p = next;
    }
    if (frames && !bad) bad = add(rows, events, 0, number, last, from - begin, p - begin, frames, &run);
    PyBuffer_Release(&data);
    if (bad || !rows) {
        Py_XDECREF(rows);
        return NULL;
    }
    return Py_BuildValue("Ni", rows, why);
}

static PyMethodDef methods[] = {{"crc32", crc32_, METH_VARARGS, NULL},
                                {"glance", glance, METH_O, NULL},
                                {"walk", walk, METH_VARARGS, NULL},
                                {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracesvc.format._frames", NULL, -1, methods};

PyMODINIT_FUNC PyInit__frames(void) {
    make_table();
    int folds = 0;
#ifdef FOLDING
    folds = can_fold = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObjectRef(made, "folds", folds ? Py_True : Py_False)) Py_CLEAR(made);
    return made;
}
