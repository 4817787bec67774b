/* Between a writer and the kernel, by LD_PRELOAD: writes down what happens to files named data.mdb
 * and wal, or has it fail. What it does is told by the environment:
 *
 * DISK_TRACE=FILE          append one entry for each write and each sync that has succeeded, and for
 *                          each message sent: kind (1 byte), offset (8), length (4), bytes.
 *                          Kinds: W written, D written through (O_DSYNC), S synced, L logged
 *                          (written through to wal), A sent.
 * DISK_FAIL=KIND:N:COUNT:ERRNO
 *                          have the N-th and the next COUNT - 1 calls fail: KIND is write, meta
 *                          (written through), log or sync; ERRNO 0 writes half of what was asked
 *                          for.
 *                          With COUNT 0: all from the N-th on, for as long as DISK_FAIL_WHILE is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OTHER, DATA, META, LOG };
static char kinds[65536]; /* by descriptor */
static int trace = -1;
static struct { char kind[8]; long first, count, seen; int error; const char *file; } fail;

#define REAL(name) \
    static typeof(name) *real; \
    if (!real) real = (typeof(name) *)dlsym(RTLD_NEXT, #name)

static void __attribute__((constructor)) set_up(void) {
    const char *path = getenv("DISK_TRACE"), *what = getenv("DISK_FAIL");
    if (path) trace = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (what && sscanf(what, "%7[a-z]:%ld:%ld:%d", fail.kind, &fail.first, &fail.count, &fail.error) != 4)
        abort();
    fail.file = getenv("DISK_FAIL_WHILE");
    unsetenv("LD_PRELOAD"); /* not for the children that look at the file */
}

static void note(char kind, int64_t offset, const struct iovec *parts, int count, uint32_t length) {
    if (trace < 0) return;
    char head[13];
    head[0] = kind;
    memcpy(head + 1, &offset, 8);
    memcpy(head + 9, &length, 4);
    struct iovec all[1026] = {{head, sizeof head}};
    int used = 1;
    for (int i = 0; i < count && length; i++, used++) {
        all[used] = parts[i];
        if (all[used].iov_len > length) all[used].iov_len = length;
        length -= all[used].iov_len;
    }
    REAL(writev);
    if (real(trace, all, used) < 0) abort();
}

static int fails(const char *kind) {
    if (strcmp(kind, fail.kind) != 0) return 0;
    fail.seen++;
    if (fail.seen < fail.first) return 0;
    if (fail.count) return fail.seen < fail.first + fail.count;
    return fail.file && access(fail.file, F_OK) == 0;
}

static const char *kind_of(int fd) {
    return kinds[fd] == META ? "meta" : kinds[fd] == LOG ? "log" : "write";
}

static int ends_with(const char *path, const char *name) {
    size_t length = strlen(path), part = strlen(name);
    return length >= part && strcmp(path + length - part, name) == 0;
}

static int opened(int fd, const char *path, int flags) {
    if (fd < 0 || fd >= (int)sizeof kinds) return fd;
    kinds[fd] = OTHER;
    if (!(flags & O_ACCMODE)) return fd;
    if (ends_with(path, "data.mdb")) kinds[fd] = (flags & O_DSYNC) ? META : DATA;
    if (ends_with(path, "/wal")) kinds[fd] = LOG;
    return fd;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return opened(real(path, flags, mode), path, flags); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    REAL(close);
    if (fd >= 0 && fd < (int)sizeof kinds) kinds[fd] = OTHER;
    return real(fd);
}

static int is_file(int fd) { return fd >= 0 && fd < (int)sizeof kinds && kinds[fd] != OTHER; }

static ssize_t noted(int fd, ssize_t written, off_t offset, const struct iovec *parts, int count) {
    char kind = kinds[fd] == META ? 'D' : kinds[fd] == LOG ? 'L' : 'W';
    if (written > 0) note(kind, offset, parts, count, (uint32_t)written);
    return written;
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *bytes, size_t length, off_t offset) { \
        REAL(name); \
        if (!is_file(fd)) return real(fd, bytes, length, offset); \
        if (fails(kind_of(fd))) { \
            if (fail.error) { errno = fail.error; return -1; } \
            length /= 2; \
        } \
        struct iovec part = {(void *)bytes, length}; \
        return noted(fd, real(fd, bytes, length, offset), offset, &part, 1); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (!is_file(fd)) return real(fd, parts, count);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    if (fails(kind_of(fd))) {
        if (fail.error) { errno = fail.error; return -1; }
        struct iovec part = {parts[0].iov_base, parts[0].iov_len / 2};
        return noted(fd, real(fd, &part, 1), offset, &part, 1);
    }
    return noted(fd, real(fd, parts, count), offset, parts, count);
}

#define SYNC(name) \
    int name(int fd) { \
        REAL(name); \
        if (!is_file(fd)) return real(fd); \
        if (fails("sync")) { errno = fail.error; return -1; } \
        int result = real(fd); \
        if (result == 0) note('S', 0, NULL, 0, 0); \
        return result; \
    }
SYNC(fdatasync)
SYNC(fsync)

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    REAL(send);
    ssize_t sent = real(fd, bytes, length, flags);
    struct iovec part = {(void *)bytes, length};
    if (sent > 0) note('A', 0, &part, 1, (uint32_t)sent);
    return sent;
}
