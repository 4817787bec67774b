#include "pronghorn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { HELLO = 33, GOODBYE = 34, CALL = 35, CANCEL = 37, CREDIT = 38, ACK = 39 };
enum { WELCOME = 48, RESULT = 49, PART = 51, ERROR = 53, BUNDLE = 56 };

static const char NAME[] = "c-example/1.0";

#define PARTS 64 /* parts that may be on their way to us; their bytes are counted by the broker */

/* One reply with what it points into, in a list in order of arrival. */
typedef struct reply {
    struct reply *next;
    char *frame; /* the message points into it */
    msgpack_unpacked message;
    void *buffer;
    size_t buffer_bytes;
    char *text; /* the message of an error, terminated */
} reply;

struct pronghorn {
    void *socket;
    int64_t last_id;
    int64_t lost_below;  /* requests of lower ids were on a connection that is lost */
    int is_connected;    /* whether the first welcome to a probe has come */
    uint64_t replies;    /* since the welcome that answered our hello */
    uint64_t acked;
    uint64_t ack_every;  /* 0: there was no welcome yet */
    reply *first, **last;
};

static const msgpack_object *element(const msgpack_object *array, uint32_t index)
{
    return index < array->via.array.size ? &array->via.array.ptr[index] : NULL;
}

static int64_t integer(const msgpack_object *object, int64_t otherwise)
{
    if (object == NULL) return otherwise;
    if (object->type == MSGPACK_OBJECT_POSITIVE_INTEGER) return (int64_t)object->via.u64;
    return object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? object->via.i64 : otherwise;
}

static const msgpack_object *member(const msgpack_object *map, const char *name)
{
    if (map == NULL || map->type != MSGPACK_OBJECT_MAP) return NULL;
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *pair = &map->via.map.ptr[i];
        if (pair->key.type == MSGPACK_OBJECT_STR && pair->key.via.str.size == strlen(name) &&
            memcmp(pair->key.via.str.ptr, name, strlen(name)) == 0)
            return &pair->val;
    }
    return NULL;
}

static void pack_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str(packer, strlen(text));
    msgpack_pack_str_body(packer, text, strlen(text));
}

/* Sends what is packed. With IMMEDIATE it waits while there is no broker. */
static int send_packed(pronghorn *client, msgpack_sbuffer *packed, int flags)
{
    int sent;
    do
        sent = zmq_send(client->socket, packed->data, packed->size, flags);
    while (sent < 0 && zmq_errno() == EINTR);
    msgpack_sbuffer_destroy(packed);
    return sent < 0 ? -1 : 0;
}

/* Sends a kind with numbers behind it. */
static int send_numbers(pronghorn *client, int kind, int count, const int64_t *numbers, int flags)
{
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, (size_t)count + 1);
    msgpack_pack_int(&packer, kind);
    for (int i = 0; i < count; i++) msgpack_pack_int64(&packer, numbers[i]);
    return send_packed(client, &packed, flags);
}

static int send_hello(pronghorn *client)
{
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 3);
    msgpack_pack_int(&packer, HELLO);
    msgpack_pack_int(&packer, 0);
    pack_text(&packer, NAME);
    return send_packed(client, &packed, 0);
}

int pronghorn_read_key(const char *path, pronghorn_key *key)
{
    char line[256];
    FILE *file = fopen(path, "r");
    if (file == NULL) return -1;
    memset(key, 0, sizeof *key);
    while (fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "public = \"%40[^\"]", key->public_key);
        sscanf(line, "secret = \"%40[^\"]", key->secret_key);
        sscanf(line, "server = \"%40[^\"]", key->server_key);
    }
    fclose(file);
    if (*key->public_key && *key->secret_key && *key->server_key) return 0;
    errno = EINVAL;
    return -1;
}

/* What can't be set makes the connection one that the broker refuses. */
static void show_key(void *socket, const pronghorn_key *key)
{
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key->public_key, sizeof key->public_key);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key->secret_key, sizeof key->secret_key);
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, key->server_key, sizeof key->server_key);
}

pronghorn *pronghorn_open(void *zmq_context, const char *endpoint, const pronghorn_key *key)
{
    static const int one = 1, linger_ms = 200;
    pronghorn *client = calloc(1, sizeof *client);
    if (client == NULL) return NULL;
    client->last = &client->first;
    client->socket = zmq_socket(zmq_context, ZMQ_DEALER);
    if (client->socket != NULL) {
        zmq_setsockopt(client->socket, ZMQ_IMMEDIATE, &one, sizeof one);
        zmq_setsockopt(client->socket, ZMQ_PROBE_ROUTER, &one, sizeof one);
        zmq_setsockopt(client->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        if (key != NULL) show_key(client->socket, key);
        if (zmq_connect(client->socket, endpoint) == 0 && send_hello(client) == 0) return client;
        zmq_close(client->socket);
    }
    free(client);
    return NULL;
}

static void free_reply(reply *one)
{
    msgpack_unpacked_destroy(&one->message);
    free(one->frame);
    free(one->buffer);
    free(one->text);
    free(one);
}

void pronghorn_close(pronghorn *client)
{
    send_numbers(client, GOODBYE, 0, NULL, ZMQ_DONTWAIT);
    zmq_close(client->socket);
    while (client->first != NULL) {
        reply *one = client->first;
        client->first = one->next;
        free_reply(one);
    }
    free(client);
}

int64_t pronghorn_begin(pronghorn *client, const char *node, const void *params, size_t params_bytes,
                        const pronghorn_options *options)
{
    const int timed = options != NULL && options->timeout_ms > 0;
    const int streaming = options != NULL && options->streaming;
    const int64_t id = ++client->last_id;
    msgpack_sbuffer packed;
    msgpack_packer packer;
    msgpack_sbuffer_init(&packed);
    msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 5);
    msgpack_pack_int(&packer, CALL);
    msgpack_pack_int64(&packer, id);
    pack_text(&packer, node);
    if (params_bytes > 0)
        msgpack_sbuffer_write(&packed, params, params_bytes); /* packed already */
    else
        msgpack_pack_nil(&packer);
    msgpack_pack_map(&packer, (size_t)(timed + streaming));
    if (timed) {
        pack_text(&packer, "timeout_ms");
        msgpack_pack_double(&packer, options->timeout_ms);
    }
    if (streaming) {
        pack_text(&packer, "stream");
        msgpack_pack_array(&packer, 2);
        msgpack_pack_int(&packer, PARTS);
        msgpack_pack_nil(&packer);
    }
    return send_packed(client, &packed, 0) < 0 ? -1 : id;
}

int pronghorn_cancel(pronghorn *client, int64_t id)
{
    return send_numbers(client, CANCEL, 1, &id, 0);
}

/* Counts a reply, and acknowledges all of them when an eighth of the grant has come. */
static int count_reply(pronghorn *client)
{
    client->replies++;
    if (client->ack_every == 0 || client->replies - client->acked < client->ack_every) return 0;
    client->acked = client->replies;
    int64_t replies = (int64_t)client->replies;
    return send_numbers(client, ACK, 1, &replies, 0);
}

static int take_welcome(pronghorn *client, const msgpack_object *message)
{
    const msgpack_object *id = element(message, 1);
    if (id != NULL && id->type != MSGPACK_OBJECT_NIL) { /* answers our hello: counting begins */
        const msgpack_object *limits = member(element(message, 2), "limits");
        const int64_t grant = integer(member(limits, "grant_requests"), 8);
        client->replies = client->acked = 0;
        client->ack_every = grant < 8 ? 1 : (uint64_t)grant / 8;
        return 0;
    }
    if (!client->is_connected) { /* the first connection's own */
        client->is_connected = 1;
        return 0;
    }
    client->lost_below = client->last_id + 1; /* made anew: nothing of before will be answered */
    client->ack_every = 0;
    return send_hello(client);
}

/* Takes in one message, packed by itself; owns the buffer. */
static int take(pronghorn *client, const char *data, size_t bytes, void *buffer, size_t buffer_bytes)
{
    reply *one = calloc(1, sizeof *one);
    size_t offset = 0;
    if (one == NULL) return -1;
    msgpack_unpacked_init(&one->message);
    one->buffer = buffer;
    one->buffer_bytes = buffer_bytes;
    if ((one->frame = malloc(bytes + 1)) != NULL) memcpy(one->frame, data, bytes);
    if (one->frame == NULL ||
        msgpack_unpack_next(&one->message, one->frame, bytes, &offset) != MSGPACK_UNPACK_SUCCESS ||
        one->message.data.type != MSGPACK_OBJECT_ARRAY) {
        free_reply(one);
        errno = EPROTO;
        return -1;
    }
    const msgpack_object *message = &one->message.data;
    const int64_t kind = integer(element(message, 0), 0);
    int status = 0;
    const msgpack_object *bundled = kind == BUNDLE ? element(message, 1) : NULL;
    if (bundled != NULL && bundled->type == MSGPACK_OBJECT_ARRAY) {
        const msgpack_object_array *inner = &bundled->via.array;
        for (uint32_t i = 0; i < inner->size && status == 0; i++) {
            msgpack_sbuffer packed;
            msgpack_packer packer;
            msgpack_sbuffer_init(&packed);
            msgpack_packer_init(&packer, &packed, msgpack_sbuffer_write);
            msgpack_pack_object(&packer, inner->ptr[i]);
            status = take(client, packed.data, packed.size, NULL, 0);
            msgpack_sbuffer_destroy(&packed);
        }
    } else if (kind == WELCOME) {
        status = take_welcome(client, message);
    } else if (kind == RESULT || kind == ERROR || kind == PART) {
        *client->last = one;
        client->last = &one->next;
        return kind == PART ? 0 : count_reply(client);
    } /* all else is a pong to nobody, or newer than we are */
    free_reply(one);
    return status;
}

static int receive(pronghorn *client)
{
    zmq_msg_t frame;
    void *buffer = NULL;
    size_t buffer_bytes = 0;
    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, client->socket, 0) < 0)
        if (zmq_errno() != EINTR) return -1;
    for (int more = zmq_msg_more(&frame); more;) {
        zmq_msg_t next;
        zmq_msg_init(&next);
        if (zmq_msg_recv(&next, client->socket, 0) < 0) return -1; /* all is there: can't be */
        more = zmq_msg_more(&next);
        if (buffer == NULL) { /* a reply has one at most */
            buffer_bytes = zmq_msg_size(&next);
            buffer = malloc(buffer_bytes);
            if (buffer != NULL) memcpy(buffer, zmq_msg_data(&next), buffer_bytes);
        }
        zmq_msg_close(&next);
    }
    int status = take(client, zmq_msg_data(&frame), zmq_msg_size(&frame), buffer, buffer_bytes);
    zmq_msg_close(&frame);
    return status;
}

/* Takes the oldest reply to a request out of the list. */
static reply *find(pronghorn *client, int64_t id)
{
    for (reply **link = &client->first; *link != NULL; link = &(*link)->next) {
        reply *one = *link;
        if (integer(element(&one->message.data, 1), -1) != id) continue;
        *link = one->next;
        if (client->last == &one->next) client->last = link;
        return one;
    }
    return NULL;
}

static void copy_text(char *to, size_t size, const msgpack_object *text)
{
    if (text == NULL || text->type != MSGPACK_OBJECT_STR) return;
    const size_t bytes = text->via.str.size < size ? text->via.str.size : size - 1;
    memcpy(to, text->via.str.ptr, bytes);
}

int pronghorn_next(pronghorn *client, int64_t id, pronghorn_event *event)
{
    reply *one;
    memset(event, 0, sizeof *event);
    event->value.type = MSGPACK_OBJECT_NIL;
    while ((one = find(client, id)) == NULL) {
        if (id < client->lost_below) {
            event->kind = PRONGHORN_ERROR;
            strcpy(event->code, "BROKER_LOST");
            event->message = "the connection was lost";
            return 0;
        }
        if (receive(client) < 0) return -1;
    }
    const msgpack_object *message = &one->message.data;
    const int64_t kind = integer(element(message, 0), 0);
    event->memory = one;
    event->buffer = one->buffer;
    event->buffer_bytes = one->buffer_bytes;
    if (kind == ERROR) {
        const msgpack_object *text = element(message, 3);
        event->kind = PRONGHORN_ERROR;
        copy_text(event->code, sizeof event->code, element(message, 2));
        if (text != NULL && text->type == MSGPACK_OBJECT_STR &&
            (one->text = calloc(1, (size_t)text->via.str.size + 1)) != NULL)
            copy_text(one->text, (size_t)text->via.str.size + 1, text);
        event->message = one->text != NULL ? one->text : "";
        if (element(message, 4) != NULL) event->value = *element(message, 4);
        return 0;
    }
    event->kind = kind == PART ? PRONGHORN_PART : PRONGHORN_RESULT;
    if (element(message, kind == PART ? 3 : 2) != NULL)
        event->value = *element(message, kind == PART ? 3 : 2);
    if (kind != PART || id < client->lost_below) return 0;
    if (integer(element(message, 2), 0) % (PARTS / 2) != PARTS / 2 - 1) return 0;
    const int64_t credit[] = {id, PARTS / 2}; /* half is used up */
    return send_numbers(client, CREDIT, 2, credit, 0);
}

void pronghorn_release(pronghorn_event *event)
{
    if (event->memory != NULL) free_reply(event->memory);
    event->memory = NULL;
}

const char *pronghorn_detail(const pronghorn_event *error, const char *name, size_t *bytes)
{
    const msgpack_object *found = member(&error->value, name);
    if (found == NULL || found->type != MSGPACK_OBJECT_STR) return NULL;
    *bytes = found->via.str.size;
    return found->via.str.ptr;
}
