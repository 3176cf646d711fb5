#pragma once

#include <stdbool.h>

#include "api/client.h"
#include "base/arena.h"
#include "base/config.h"
#include "base/error.h"
#include "net/channel.h"
#include "net/net.h"

// One run of a verb: the connection to the public API, the caller's tokens, and how to print. The
// command line uses the same calls as every other client and has no other way in. One thread.

struct session {
    const struct config *config;
    struct arena *arena; // lives as long as the run
    struct error error;
    bool is_json;
    struct net *net;
    struct tls *tls;
    struct channel *gateway;
    struct channel *accounts;
    struct str data_proof; // what data calls authorise themselves with, once the first was made
};

// The settings that every verb has.
extern const struct setting session_settings[];
extern const uint32_t session_setting_count;

enum status session_open(const struct config *config, struct session *session);
void session_close(struct session *session);

// A call of the data service with the SDK token, or of the auth service with the login token. The
// answer lives in the arena that is given.
enum status session_call_data(struct session *session, const char *method,
                              const ProtobufCMessage *request, struct arena *arena,
                              const ProtobufCMessage **out_response);
enum status session_call_account(struct session *session, const char *method,
                                 const ProtobufCMessage *request,
                                 const ProtobufCMessage **out_response);
// The same for a long job: while the server cannot be reached, is too late or over a limit, the
// call is made again, for retry_seconds at most. Only for what may be done twice.
enum status session_call_data_patiently(struct session *session, const char *method,
                                        const ProtobufCMessage *request, uint64_t retry_seconds,
                                        struct arena *arena, const ProtobufCMessage **out_response);
// A call that the operator makes, with proof of the secret of the tokens.
enum status session_call_identity(struct session *session, struct str proof, const char *method,
                                  const ProtobufCMessage *request,
                                  const ProtobufCMessage **out_response);

// A call of the placement driver, with proof of the cluster's secret; the verb has the setting
// pd-addrs, and the first of these that leads answers.
enum status session_call_cluster(struct session *session, struct str proof, const char *method,
                                 const ProtobufCMessage *request,
                                 const ProtobufCMessage **out_response);

// Words behind the verb.
struct str session_word(const struct session *session, uint32_t index);
char *session_word_cstr(const struct session *session, uint32_t index);

// Print a message as one line of JSON.
void session_print_json(const ProtobufCMessage *message);

// Tokens are kept in $VECTRON_HOME or ~/.vectron, readable by their owner only.
enum status session_save(struct session *session, const char *name, struct str text);
// Empty when there is no such file.
struct str session_load(struct session *session, const char *name);

// Read a file whole, or standard input for "-". Fills the session's error.
enum status session_read_file(struct session *session, struct str path, size_t size_max,
                              struct str *out_text);
