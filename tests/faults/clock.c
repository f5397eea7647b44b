/* A clock of the machine that jumps, every CLOCK_TENTHS of a second, up to CLOCK_SECONDS either way: not the monotonic
 * one, which no machine's administrator can set. Loaded before the C library (LD_PRELOAD).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static int64_t jump(void) {
    struct timespec now;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_MONOTONIC, &now);
    uint64_t part = (now.tv_sec * 10 + now.tv_nsec / 100000000) / atoi(getenv("CLOCK_TENTHS"));
    const int64_t most = atoll(getenv("CLOCK_SECONDS"));
    return (int64_t)((part ^ part >> 7) * 0x9e3779b97f4a7c15u >> 11) % (2 * most) - most;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int64_t by = jump();
    int done = real(id, at);
    if (!done && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += by;
    return done;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
