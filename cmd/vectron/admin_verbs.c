// Verbs of the operator: they need the secret of the tokens or the services' files, and so a place
// on a machine that has them.
#include <stdio.h>
#include <string.h>

#include "api/auth.pb-c.h"
#include "server/audit.h"
#include "server/secret.h"
#include "vectron/password.h"
#include "vectron/verb.h"

enum { AUDIT_FILES_MAX = 64 };

static const struct setting create_settings[] = {PASSWORD_SETTING, SECRET_SETTINGS};

static enum status run_admin_create(struct session *session)
{
    Vectron__Auth__V1__MakeAdminRequest request = VECTRON__AUTH__V1__MAKE_ADMIN_REQUEST__INIT;
    const ProtobufCMessage *message = NULL;
    struct secrets secrets = {0};
    struct str password = {0};
    TRY(secrets_read(session->config, &session->error, &secrets));
    struct str proof = arena_str(session->arena, str_from_cstr(secrets.identity_token));
    explicit_bzero(&secrets, sizeof(secrets));
    TRY(password_read(session, &password));
    request.email = session_word_cstr(session, 0);
    request.password = arena_cstr(session->arena, password);
    TRY(session_call_identity(session, proof, "MakeAdmin", &request.base, &message));
    if (session->is_json)
        session_print_json(message);
    else
        printf("%s is an admin\n", request.email);
    return STATUS_OK;
}

// The files of one log in their order, or one of them.
static enum status run_audit_verify(struct session *session)
{
    struct audit_chain chain = {0};
    for (uint32_t i = 0; i < config_word_count(session->config); i++) {
        const char *path = session_word_cstr(session, i);
        enum status status = audit_check_file(path, &chain, &session->error);
        if (status != STATUS_OK)
            return error_prefix(&session->error, status, "%s", path);
    }
    if (session->is_json)
        printf("{\"events\":%llu,\"lastSequence\":%llu,\"lastHash\":\"%s\"}\n",
               (unsigned long long)chain.count, (unsigned long long)chain.sequence, chain.hash);
    else
        printf("%llu events, the last is number %llu with the hash %s\n",
               (unsigned long long)chain.count, (unsigned long long)chain.sequence, chain.hash);
    return STATUS_OK;
}

const struct verb admin_verbs[] = {
    {"admin create", "EMAIL", "make an account that may call the management endpoints",
     create_settings, sizeof(create_settings) / sizeof(create_settings[0]), 1, 1, run_admin_create},
    {"audit verify", "FILE…", "check that an audit log was not changed", NULL, 0, 1,
     AUDIT_FILES_MAX, run_audit_verify},
};
const uint32_t admin_verb_count = sizeof(admin_verbs) / sizeof(admin_verbs[0]);
