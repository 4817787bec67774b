/* A client of Pronghorn in C: msgpack over a DEALER socket, written from PROTOCOL.md alone.
 *
 *     pronghorn *client = pronghorn_open(context, endpoint, NULL);
 *     int64_t id = pronghorn_begin(client, "add", params.data, params.size, NULL);
 *     pronghorn_event event;
 *     pronghorn_next(client, id, &event);           // a result, an error, or a part
 *     pronghorn_release(&event);
 *     pronghorn_close(client);
 *
 * A client is for one thread. Any number of requests may be open at once; events of others than the
 * one that is asked for are kept.
 */
#ifndef PRONGHORN_H
#define PRONGHORN_H

#include <msgpack.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pronghorn pronghorn;

typedef struct {
    double timeout_ms; /* 0: no deadline */
    int streaming;     /* wants the parts of a streaming node as they come */
} pronghorn_options;

typedef enum { PRONGHORN_RESULT, PRONGHORN_ERROR, PRONGHORN_PART } pronghorn_event_kind;

typedef struct {
    pronghorn_event_kind kind;
    msgpack_object value;  /* of a result or a part; of an error its details, a map or nil */
    const void *buffer;    /* bytes that came beside the value (which is extension 1 then), or NULL */
    size_t buffer_bytes;
    char code[32];         /* of an error: NODE_ERROR, DEADLINE_EXCEEDED, ... */
    const char *message;   /* of an error, for people */
    void *memory;          /* what holds all this until pronghorn_release */
} pronghorn_event;

/* Keys in Z85, with the zero at their ends. */
typedef struct {
    char public_key[41], secret_key[41]; /* our own pair */
    char server_key[41];                 /* the broker's */
} pronghorn_key;

/* Reads a file of `pronghorn keys new`. 0, or -1 with errno. */
int pronghorn_read_key(const char *path, pronghorn_key *key);

/* Connects to an endpoint, in a context of libzmq's; NULL if it can't be one. The key is for a
 * broker that wants one, else NULL. */
pronghorn *pronghorn_open(void *zmq_context, const char *endpoint, const pronghorn_key *key);

/* Says goodbye, which cancels what is open. */
void pronghorn_close(pronghorn *client);

/* Begins a call; params are packed as a map (by name) or an array (by position), options may be
 * NULL. Returns its id, or -1 with errno. Waits while there is no broker. */
int64_t pronghorn_begin(pronghorn *client, const char *node, const void *params, size_t params_bytes,
                        const pronghorn_options *options);

/* Gives up a request; its one result or error still comes. */
int pronghorn_cancel(pronghorn *client, int64_t id);

/* Waits for the next event of a request. 0, or -1 with errno. If the broker is lost that is an error
 * BROKER_LOST. A result or error is the last event. */
int pronghorn_next(pronghorn *client, int64_t id, pronghorn_event *event);

void pronghorn_release(pronghorn_event *event);

/* Finds a text in the details of an error; NULL if there is none. Not terminated: see bytes. */
const char *pronghorn_detail(const pronghorn_event *error, const char *name, size_t *bytes);

#endif
