// Verbs of the operator: they need the secret of the tokens, and so a place on a machine that has
// it.
#include <stdio.h>
#include <string.h>

#include "api/auth.pb-c.h"
#include "server/secret.h"
#include "vectron/password.h"
#include "vectron/verb.h"

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

const struct verb admin_verbs[] = {
    {"admin create", "EMAIL", "make an account that may call the management endpoints",
     create_settings, sizeof(create_settings) / sizeof(create_settings[0]), 1, 1, run_admin_create},
};
const uint32_t admin_verb_count = sizeof(admin_verbs) / sizeof(admin_verbs[0]);
