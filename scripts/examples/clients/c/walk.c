/* Takes the walk that README.md describes: walk ENDPOINT. PRONGHORN_KEY may name a key file. */
#include "pronghorn.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

static void check(int is_good, const char *what)
{
    if (is_good) return;
    perror(what);
    exit(1);
}

/* Begins a call with integers by position. */
static int64_t begin(pronghorn *client, const char *node, const pronghorn_options *options, int count, ...)
{
    msgpack_sbuffer params;
    msgpack_packer packer;
    va_list numbers;
    msgpack_sbuffer_init(&params);
    msgpack_packer_init(&packer, &params, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, (size_t)count);
    va_start(numbers, count);
    for (int i = 0; i < count; i++) msgpack_pack_int(&packer, va_arg(numbers, int));
    va_end(numbers);
    int64_t id = pronghorn_begin(client, node, params.data, params.size, options);
    msgpack_sbuffer_destroy(&params);
    check(id >= 0, node);
    return id;
}

static pronghorn_event next(pronghorn *client, int64_t id)
{
    pronghorn_event event;
    check(pronghorn_next(client, id, &event) == 0, "next");
    return event;
}

/* Prints the sum of 1 and 2. */
static void add(pronghorn *client, const char *step)
{
    pronghorn_event event = next(client, begin(client, "add", NULL, 2, 1, 2));
    check(event.kind == PRONGHORN_RESULT, step);
    if (*step) printf("%s %" PRIu64 "\n", step, event.value.via.u64);
    pronghorn_release(&event);
}

/* Prints what a call that must fail came to. */
static void failure(pronghorn *client, const char *step, int64_t id)
{
    pronghorn_event event = next(client, id);
    size_t bytes = 0;
    check(event.kind == PRONGHORN_ERROR, step);
    const char *exception = pronghorn_detail(&event, "exception", &bytes);
    printf("%s %s%s%.*s\n", step, event.code, exception ? " " : "", (int)bytes, exception ? exception : "");
    pronghorn_release(&event);
}

int main(int argc, char **argv)
{
    static const pronghorn_options streaming = {.streaming = 1}, short_of_time = {.timeout_ms = 50};
    check(argc == 2, "usage: walk ENDPOINT");
    setvbuf(stdout, NULL, _IOLBF, 0);
    void *context = zmq_ctx_new();
    const char *path = getenv("PRONGHORN_KEY");
    pronghorn_key key;
    if (path != NULL) check(pronghorn_read_key(path, &key) == 0, path);
    pronghorn *client = pronghorn_open(context, argv[1], path != NULL ? &key : NULL);
    check(client != NULL, "connect");

    add(client, "call");

    int64_t id = begin(client, "count", &streaming, 1, 200);
    uint64_t parts = 0, sum = 0;
    for (int more = 1; more;) {
        pronghorn_event event = next(client, id);
        more = event.kind == PRONGHORN_PART;
        parts += (uint64_t)more;
        if (more) sum += event.value.via.u64;
        pronghorn_release(&event);
    }
    printf("stream %" PRIu64 " parts, sum %" PRIu64 "\n", parts, sum);

    id = begin(client, "wait", NULL, 0);
    check(pronghorn_cancel(client, id) == 0, "cancel");
    failure(client, "cancel", id);

    failure(client, "deadline", begin(client, "wait", &short_of_time, 0));
    failure(client, "error", begin(client, "divide", NULL, 2, 1, 0));

    id = begin(client, "wait", NULL, 0);
    add(client, ""); /* what was sent before it has arrived */
    printf("open\n");
    failure(client, "lost", id);
    add(client, "again");

    pronghorn_close(client);
    zmq_ctx_term(context);
    return 0;
}
