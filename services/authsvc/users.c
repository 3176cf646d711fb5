#include "authsvc/users.h"

#include <string.h>

#include "authsvc/departures.h"
#include "authsvc/keys.h"
#include "authsvc/records.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "identity/password.h"

enum { LOGIN_SECONDS = 24 * 3600, USER_ID_SIZE = 36 };

// --- Parts of it

// A random UUID (RFC 9562, version 4).
static char *make_user_id(struct arena *arena)
{
    uint8_t b[16];
    rng_secure(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    char *id = arena_alloc(arena, USER_ID_SIZE + 1);
    static const char digits[] = "0123456789abcdef";
    size_t size = 0;
    for (size_t i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            id[size++] = '-';
        id[size++] = digits[b[i] >> 4];
        id[size++] = digits[b[i] & 15];
    }
    return id;
}

enum status user_make(struct str email, struct str password, struct arena *arena,
                      struct error *error, user_record *out_user)
{
    static char role[] = "user";
    char hash[PASSWORD_HASH_SIZE];
    TRY(password_hash(password, error, hash));
    vectron__auth__v1__stored_user__init(out_user);
    out_user->user_id = make_user_id(arena);
    out_user->email = arena_cstr(arena, email);
    out_user->password_hash = arena_cstr(arena, str_from_cstr(hash));
    out_user->plan = VECTRON__AUTH__V1__PLAN__FREE;
    out_user->role = role;
    out_user->created_at = clock_unix_seconds();
    out_user->subscription_status = VECTRON__AUTH__V1__SUBSCRIPTION_STATUS__ACTIVE;
    return STATUS_OK;
}

static Vectron__Auth__V1__UserProfile *make_profile(struct work *work, const user_record *user)
{
    Vectron__Auth__V1__UserProfile *profile =
        work_message(work, &vectron__auth__v1__user_profile__descriptor);
    record_to_profile(user, profile);
    return profile;
}

static enum status make_login_token(struct work *work, const user_record *user,
                                    int64_t *out_expires_at, char **out_token)
{
    struct str jwt = {0};
    int64_t now = clock_unix_seconds();
    struct token token = {
        .kind = TOKEN_LOGIN,
        .user_id = str_from_cstr(user->user_id),
        .plan = record_plan(user),
        .role = str_from_cstr(user->role),
        .issued_at = now,
        .expires_at = now + LOGIN_SECONDS,
        .generation = user->token_generation,
    };
    TRY(token_sign(work->authsvc->authority, &token, work->arena, &work->error, &jwt));
    *out_expires_at = token.expires_at;
    *out_token = arena_cstr(work->arena, jwt);
    return STATUS_OK;
}

static enum status find_user(struct work *work, struct str email)
{
    struct accounts *accounts = work->authsvc->accounts;
    struct str user_id = {0};
    uint64_t version = 0;
    enum status status =
        accounts_find_user_id(accounts, email, work->arena, &work->error, &user_id, &version);
    if (status == STATUS_OK)
        return accounts_get_user(accounts, user_id, work->arena, &work->error, &work->user,
                                 &work->user_version);
    // Somebody who is not there takes as many questions as somebody who is.
    if (status == STATUS_NOT_FOUND)
        return accounts_get_user(accounts, STR("nobody"), work->arena, &work->error, &work->user,
                                 &work->user_version);
    return status;
}

// --- RegisterUser

static enum status fail_taken(struct work *work, struct str email)
{
    return error_set(&work->error, STATUS_EXISTS, "an account for %.*s already exists",
                     STR_ARG(email));
}

static enum status put_new_user(struct work *work, void *context)
{
    const user_record *user = context;
    struct str email = str_from_cstr(user->email);
    struct batch batch;
    enum status status = find_user(work, email);
    if (status == STATUS_OK)
        return fail_taken(work, email);
    if (status != STATUS_NOT_FOUND)
        return status;
    batch_init(&batch, work->arena, str_from_cstr(user->user_id));
    batch_put_user(&batch, user, 0);
    batch_put_email(&batch, user);
    return accounts_commit(work->authsvc->accounts, &batch, &work->error);
}

enum status users_register(struct work *work)
{
    const Vectron__Auth__V1__RegisterUserRequest *request = (const void *)work->request;
    struct str password = str_from_cstr(request->password);
    struct str email = {0};
    user_record user;
    TRY(email_normalise(str_from_cstr(request->email), work->arena, &work->error, &email));
    TRY(password_check_rules(password, &work->error));
    // Before the hash, which is dear.
    enum status status = find_user(work, email);
    if (status == STATUS_OK)
        return fail_taken(work, email);
    if (status != STATUS_NOT_FOUND)
        return status;
    TRY(user_make(email, password, work->arena, &work->error, &user));
    TRY(work_repeat(work, put_new_user, &user));
    work->audit_who = arena_str(work->arena, str_from_cstr(user.user_id));
    log_info("user registered", LOG_CSTR("user", user.user_id), LOG_STR("address", work->address));
    Vectron__Auth__V1__RegisterUserResponse *response =
        work_message(work, &vectron__auth__v1__register_user_response__descriptor);
    response->user = make_profile(work, &user);
    work->response = &response->base;
    return STATUS_OK;
}

// --- Login, RefreshToken

enum status users_login(struct work *work)
{
    const Vectron__Auth__V1__LoginRequest *request = (const void *)work->request;
    struct error ignored = {0};
    struct str email = {0};
    bool is_right = false;
    int64_t expires_at = 0;
    if (request->email[0] == '\0')
        return error_set(&work->error, STATUS_INVALID, "email: empty");
    if (request->password[0] == '\0')
        return error_set(&work->error, STATUS_INVALID, "password: empty");
    // What is no address is nobody's.
    if (email_normalise(str_from_cstr(request->email), work->arena, &ignored, &email) != STATUS_OK)
        email = STR("nobody");
    enum status status = find_user(work, email);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        return status;
    const char *hash = status == STATUS_OK ? work->user->password_hash : NULL;
    TRY(password_verify(hash, str_from_cstr(request->password), &work->error, &is_right));
    if (!is_right) {
        log_info("login refused", LOG_STR("address", work->address));
        return error_set(&work->error, STATUS_UNAUTHENTICATED, "invalid email or password");
    }
    Vectron__Auth__V1__LoginResponse *response =
        work_message(work, &vectron__auth__v1__login_response__descriptor);
    TRY(make_login_token(work, work->user, &expires_at, &response->jwt_token));
    response->user = make_profile(work, work->user);
    work->response = &response->base;
    return STATUS_OK;
}

enum status users_refresh_token(struct work *work)
{
    Vectron__Auth__V1__RefreshTokenResponse *response =
        work_message(work, &vectron__auth__v1__refresh_token_response__descriptor);
    TRY(work_load_user(work));
    TRY(make_login_token(work, work->user, &response->expires_at, &response->jwt_token));
    work->response = &response->base;
    return STATUS_OK;
}

// --- Profile

enum status users_get_profile(struct work *work)
{
    Vectron__Auth__V1__GetUserProfileResponse *response =
        work_message(work, &vectron__auth__v1__get_user_profile_response__descriptor);
    TRY(work_load_user(work));
    response->user = make_profile(work, work->user);
    work->response = &response->base;
    return STATUS_OK;
}

static enum status put_plan(struct work *work, void *context)
{
    const Vectron__Auth__V1__UpdateUserProfileRequest *request = context;
    struct batch batch;
    TRY(work_load_user(work));
    if (!work->authsvc->users_choose_plan && !record_is_admin(work->user))
        return error_set(&work->error, STATUS_FORBIDDEN,
                         "changing a plan needs the role admin here");
    work->user->plan = request->plan;
    batch_init(&batch, work->arena, str_from_cstr(work->user->user_id));
    batch_put_user(&batch, work->user, work->user_version);
    return accounts_commit(work->authsvc->accounts, &batch, &work->error);
}

enum status users_update_profile(struct work *work)
{
    Vectron__Auth__V1__UpdateUserProfileRequest request =
        *(const Vectron__Auth__V1__UpdateUserProfileRequest *)(const void *)work->request;
    int64_t expires_at = 0;
    if (request.plan != VECTRON__AUTH__V1__PLAN__FREE &&
        request.plan != VECTRON__AUTH__V1__PLAN__PAID)
        return error_set(&work->error, STATUS_INVALID,
                         "plan: %d is no plan; it must be 1 (FREE) or 2 (PAID)", (int)request.plan);
    TRY(work_repeat(work, put_plan, &request));
    Vectron__Auth__V1__UpdateUserProfileResponse *response =
        work_message(work, &vectron__auth__v1__update_user_profile_response__descriptor);
    TRY(make_login_token(work, work->user, &expires_at, &response->jwt_token));
    response->user = make_profile(work, work->user);
    work->response = &response->base;
    return STATUS_OK;
}

// --- Password

// What was checked is slow to check: a record whose hash is still the same needs it once.
struct password_check {
    struct str password;
    const char *hash; // for which it was right; NULL: not checked yet
};

static enum status check_password(struct work *work, struct password_check *check,
                                  const char *field)
{
    bool is_right = false;
    if (check->hash != NULL && strcmp(check->hash, work->user->password_hash) == 0)
        return STATUS_OK;
    TRY(password_verify(work->user->password_hash, check->password, &work->error, &is_right));
    if (!is_right) {
        log_info("wrong password for a change", LOG_CSTR("user", work->user->user_id),
                 LOG_STR("address", work->address));
        return error_set(&work->error, STATUS_FORBIDDEN,
                         "%s: wrong; the account's present password is needed", field);
    }
    check->hash = work->user->password_hash;
    return STATUS_OK;
}

struct password_change {
    struct password_check old;
    char *new_hash;
};

static enum status put_password(struct work *work, void *context)
{
    struct password_change *change = context;
    struct batch batch;
    TRY(work_load_user(work));
    TRY(check_password(work, &change->old, "old_password"));
    work->user->password_hash = change->new_hash;
    work->user->token_generation++;
    batch_init(&batch, work->arena, str_from_cstr(work->user->user_id));
    batch_put_user(&batch, work->user, work->user_version);
    return accounts_commit(work->authsvc->accounts, &batch, &work->error);
}

enum status users_change_password(struct work *work)
{
    const Vectron__Auth__V1__ChangePasswordRequest *request = (const void *)work->request;
    struct password_change change = {.old = {.password = str_from_cstr(request->old_password)}};
    struct str password = str_from_cstr(request->new_password);
    char hash[PASSWORD_HASH_SIZE];
    if (password_check_rules(password, &work->error) != STATUS_OK)
        return error_prefix(&work->error, STATUS_INVALID, "new_password");
    // The old one first: who does not know it learns nothing and costs one hash.
    TRY(work_load_user(work));
    TRY(check_password(work, &change.old, "old_password"));
    TRY(password_hash(password, &work->error, hash));
    change.new_hash = hash;
    TRY(work_repeat(work, put_password, &change));
    log_info("password changed", LOG_CSTR("user", work->user->user_id),
             LOG_STR("address", work->address));
    Vectron__Auth__V1__ChangePasswordResponse *response =
        work_message(work, &vectron__auth__v1__change_password_response__descriptor);
    response->success = true;
    work->response = &response->base;
    return STATUS_OK;
}

// --- DeleteUser

// His collections are not in this store: what is left here makes them go (departures.h).
static void put_departure(struct work *work, struct batch *batch)
{
    departure_record departure = VECTRON__AUTH__V1__STORED_DEPARTURE__INIT;
    if (work->authsvc->departures == NULL)
        return;
    departure.user_id = work->user->user_id;
    departure.left_at = clock_unix_seconds();
    batch_put_departure(batch, &departure);
}

// All that belongs to the user goes with his record in one step; of very many keys, most before
// it. A key that is made meanwhile changes his record, so that this begins again.
static enum status remove_user(struct work *work, void *context)
{
    enum { OTHER_ENTRIES = 4, ENTRIES_PER_KEY = 2 };
    struct accounts *accounts = work->authsvc->accounts;
    struct batch batch;
    struct key_list keys = {0};
    struct str owner = {0};
    uses_record *uses = NULL;
    uint64_t uses_version = 0;
    uint64_t email_version = 0;
    TRY(work_load_user(work));
    TRY(check_password(work, context, "password"));
    struct str user_id = str_from_cstr(work->user->user_id);
    struct str email = str_from_cstr(work->user->email);
    TRY(accounts_list_keys(accounts, user_id, work->arena, &work->error, &keys));
    TRY(accounts_get_uses(accounts, user_id, work->arena, &work->error, &uses, &uses_version));
    TRY(accounts_find_user_id(accounts, email, work->arena, &work->error, &owner, &email_version));
    batch_init(&batch, work->arena, user_id);
    for (uint32_t i = 0; i < keys.count; i++) {
        if (!batch_has_room(&batch, ENTRIES_PER_KEY + OTHER_ENTRIES)) {
            TRY(accounts_commit(accounts, &batch, &work->error));
            batch_init(&batch, work->arena, user_id);
        }
        struct found_key key = {keys.keys[i], keys.versions[i]};
        TRY(keys_remove(work, &batch, &key));
    }
    batch_remove_user(&batch, work->user_version);
    batch_remove_email(&batch, email, email_version);
    if (uses_version != 0)
        batch_remove_uses(&batch, uses_version);
    put_departure(work, &batch);
    return accounts_commit(accounts, &batch, &work->error);
}

enum status users_delete(struct work *work)
{
    const Vectron__Auth__V1__DeleteUserRequest *request = (const void *)work->request;
    struct password_check check = {.password = str_from_cstr(request->password)};
    TRY(work_repeat(work, remove_user, &check));
    departures_wake(work->authsvc->departures);
    log_info("user deleted", LOG_CSTR("user", work->user->user_id),
             LOG_STR("address", work->address));
    Vectron__Auth__V1__DeleteUserResponse *response =
        work_message(work, &vectron__auth__v1__delete_user_response__descriptor);
    response->success = true;
    work->response = &response->base;
    return STATUS_OK;
}
