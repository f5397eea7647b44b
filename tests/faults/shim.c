/* A disk that fills up, or a process that is killed, at the nth call that changes files under a folder.
 *
 * Loaded before the C library (LD_PRELOAD) into Python, so that what libraries write is seen as well. fault_arm() starts
 * counting; fault_count() says how many calls there were. Kinds: 0 counts, 1 kills before the call, 2 kills after it, 3 has
 * the call fail with ENOSPC, and all after it that would take space. Calls: renames and fsyncs for 0 to 2 with ops 1,
 * whatever takes space with ops 2.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char under[4096];
static int kind, ops;
static long at = -1, count;

void fault_arm(const char *folder, int how, int which, long nth) {
    strncpy(under, folder, sizeof under - 1);
    kind = how, ops = which, at = nth, count = 0;
}

long fault_count(void) { return count; }

static int below(const char *path) {
    char whole[8192];
    if (!under[0] || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, 4096)) return 0;
        strncat(whole, "/", 2), strncat(whole, path, 4000);
        path = whole;
    }
    return !strncmp(path, under, strlen(under));
}

static int below_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return path[0] == '/' && below(path); /* not a pipe */
}

/* 1: the call must fail. A full disk stays full. */
static int before(int which, int is_below) {
    if (!(ops & which) || !is_below) return 0;
    long now = __sync_fetch_and_add(&count, 1);
    if (kind == 1 && now == at) kill(getpid(), SIGKILL);
    if (kind == 3 && now >= at && at >= 0) { errno = ENOSPC; return 1; }
    return 0;
}

static void after(int which, int is_below) {
    if ((ops & which) && is_below && kind == 2 && count - 1 == at) kill(getpid(), SIGKILL);
}

#define WRAP(type, name, which, is_below, parameters, arguments)          \
    type name parameters {                                                \
        static type (*real) parameters;                                   \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);    \
        int inside = is_below;                                            \
        if (before(which, inside)) return -1;                             \
        type done = real arguments;                                       \
        after(which, inside);                                             \
        return done;                                                      \
    }

WRAP(int, rename, 1, below(to), (const char *from, const char *to), (from, to))
WRAP(int, renameat, 1, below(to), (int d, const char *from, int e, const char *to), (d, from, e, to))
WRAP(int, fsync, 1, below_fd(fd), (int fd), (fd))
WRAP(int, fdatasync, 1, below_fd(fd), (int fd), (fd))
WRAP(ssize_t, write, 2, below_fd(fd), (int fd, const void *p, size_t n), (fd, p, n))
WRAP(ssize_t, pwrite, 2, below_fd(fd), (int fd, const void *p, size_t n, off_t o), (fd, p, n, o))
WRAP(ssize_t, pwrite64, 2, below_fd(fd), (int fd, const void *p, size_t n, off64_t o), (fd, p, n, o))
WRAP(ssize_t, writev, 2, below_fd(fd), (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(int, mkdir, 2, below(path), (const char *path, mode_t mode), (path, mode))

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        static int (*real)(const char *, int, ...);                             \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        va_list more;                                                           \
        va_start(more, flags);                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                           \
        if ((flags & O_CREAT) && before(2, below(path))) return -1;             \
        return real(path, flags, mode);                                         \
    }

OPEN(open)
OPEN(open64)
