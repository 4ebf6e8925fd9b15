/* Preloaded below a store: makes the nth call of a kind fail, as told in a file of eight numbers that is mapped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE_FAILS, WRITE_SHORT, SYNC_FAILS, RENAME_FAILS, CUT_FAILS, CALLS, HITS };   /* places in the file */

static volatile int *plan;
static char *below;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("FAULTS"), O_RDWR);
    plan = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    below = getenv("FAULTS_BELOW");
}

static int ours(int fd) {                                  /* files of sessions only */
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = 0;
    return strstr(path, below) && strstr(path, ".trace");
}

static int hit(int what, int error) {
    if (!plan[what]) return 0;
    plan[HITS]++;
    errno = error ? error : plan[what];
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at) {
    if (ours(fd)) {
        plan[CALLS]++;
        if (hit(WRITE_FAILS, 0)) return -1;
        if (plan[WRITE_SHORT] && n && parts[0].iov_len > 1) {
            struct iovec half = {parts[0].iov_base, parts[0].iov_len / 2};
            plan[HITS]++;
            return REAL(pwritev)(fd, &half, 1, at);
        }
    }
    return REAL(pwritev)(fd, parts, n, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t at) { return pwritev(fd, parts, n, at); }

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    if (ours(fd)) {
        plan[CALLS]++;
        if (hit(WRITE_FAILS, 0)) return -1;
        if (plan[WRITE_SHORT] && size > 1) size /= 2, plan[HITS]++;
    }
    return REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

int fdatasync(int fd) {
    if (ours(fd) && hit(SYNC_FAILS, 0)) return -1;
    return REAL(fdatasync)(fd);
}

int ftruncate(int fd, off_t size) {
    if (ours(fd) && hit(CUT_FAILS, 0)) return -1;
    return REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int rename(const char *from, const char *to) {
    if (strstr(from, below) && hit(RENAME_FAILS, 0)) return errno = plan[RENAME_FAILS], -1;
    return REAL(rename)(from, to);
}
