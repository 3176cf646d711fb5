#include "authsvc/admin.h"

#include <string.h>

#include "authsvc/records.h"
#include "authsvc/users.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "identity/password.h"
#include "server/secret.h"

enum { ARENA_SIZE = 1 << 20 };

struct admin {
    char email[LIMIT_EMAIL_SIZE_MAX + 1];
    char password[SECRET_SIZE_MAX + 1]; // empty: none was given
};

// --- Settings

static enum status read_password(const struct config *config, struct error *error,
                                 struct admin *admin)
{
    struct str password = config_str(config, "admin-password");
    struct str path = config_str(config, "admin-password-file");
    if (password.len > SECRET_SIZE_MAX)
        return error_set(error, STATUS_INVALID, "admin-password: %zu bytes, the limit is %d",
                         password.len, SECRET_SIZE_MAX);
    if (password.len > 0) {
        memcpy(admin->password, password.data, password.len);
    } else if (path.len > 0) {
        enum status status = secret_read_file(path.data, error, admin->password);
        if (status != STATUS_OK)
            return error_prefix(error, status, "admin-password-file");
    }
    if (admin->password[0] == '\0')
        return STATUS_OK;
    enum status status = password_check_rules(str_from_cstr(admin->password), error);
    return status == STATUS_OK ? status : error_prefix(error, status, "VECTRON_ADMIN_PASSWORD");
}

static enum status read_settings(const struct config *config, struct error *error,
                                 struct admin *admin)
{
    struct arena *arena = arena_create(ARENA_SIZE);
    struct str email = {0};
    enum status status = email_normalise(config_str(config, "admin-email"), arena, error, &email);
    if (status == STATUS_OK)
        memcpy(admin->email, email.data, email.len);
    else
        status = error_prefix(error, status, "VECTRON_ADMIN_EMAIL");
    arena_destroy(arena);
    return status == STATUS_OK ? read_password(config, error, admin) : status;
}

enum status admin_create(const struct config *config, struct error *error, struct admin **out_admin)
{
    bool has_email = config_str(config, "admin-email").len > 0;
    bool has_password = config_str(config, "admin-password").len > 0 ||
                        config_str(config, "admin-password-file").len > 0;
    if (!has_email && has_password)
        return error_set(error, STATUS_INVALID,
                         "VECTRON_ADMIN_PASSWORD is set without VECTRON_ADMIN_EMAIL");
    if (!has_email) {
        *out_admin = NULL;
        return STATUS_OK;
    }
    struct admin *admin = mem_alloc(sizeof(*admin));
    enum status status = read_settings(config, error, admin);
    if (status != STATUS_OK) {
        admin_destroy(admin);
        return status;
    }
    *out_admin = admin;
    return STATUS_OK;
}

void admin_destroy(struct admin *admin)
{
    if (admin != NULL)
        explicit_bzero(admin, sizeof(*admin));
    mem_free(admin);
}

// --- The account

struct task_of_admin {
    struct str email;
    struct str password; // empty: none was given
    struct accounts *accounts;
    struct arena *arena;
    struct error *error;
    struct str user_id; // afterwards
};

static char admin_role[] = "admin";

static enum status make(struct task_of_admin *task)
{
    user_record user;
    struct batch batch;
    if (task->password.len == 0) {
        log_warn("nobody is made an admin: VECTRON_ADMIN_EMAIL has no account and "
                 "VECTRON_ADMIN_PASSWORD is not set");
        return STATUS_OK;
    }
    TRY(user_make(task->email, task->password, task->arena, task->error, &user));
    user.role = admin_role;
    batch_init(&batch, task->arena, str_from_cstr(user.user_id));
    batch_put_user(&batch, &user, 0);
    batch_put_email(&batch, &user);
    TRY(accounts_commit(task->accounts, &batch, task->error));
    log_info("admin made", LOG_CSTR("user", user.user_id));
    task->user_id = str_from_cstr(user.user_id);
    return STATUS_OK;
}

static enum status promote(struct task_of_admin *task, user_record *user, uint64_t version)
{
    char hash[PASSWORD_HASH_SIZE];
    struct batch batch;
    task->user_id = str_from_cstr(user->user_id);
    if (record_is_admin(user))
        return STATUS_OK;
    user->role = admin_role;
    if (task->password.len > 0) {
        TRY(password_hash(task->password, task->error, hash));
        user->password_hash = hash;
        user->token_generation++;
    }
    batch_init(&batch, task->arena, str_from_cstr(user->user_id));
    batch_put_user(&batch, user, version);
    TRY(accounts_commit(task->accounts, &batch, task->error));
    log_info("user made an admin", LOG_CSTR("user", user->user_id));
    return STATUS_OK;
}

static enum status ensure_once(struct task_of_admin *task)
{
    struct str user_id = {0};
    user_record *user = NULL;
    uint64_t version = 0;
    enum status status = accounts_find_user_id(task->accounts, task->email, task->arena,
                                               task->error, &user_id, &version);
    if (status == STATUS_NOT_FOUND)
        return make(task);
    TRY(status);
    TRY(accounts_get_user(task->accounts, user_id, task->arena, task->error, &user, &version));
    return promote(task, user, version);
}

// --- At start

enum status admin_ensure(struct admin *admin, struct accounts *accounts, struct error *error)
{
    enum status status = STATUS_ABORTED;
    if (admin == NULL)
        return STATUS_OK;
    for (uint32_t i = 0; i < ACCOUNTS_TRIES_MAX && status == STATUS_ABORTED; i++) {
        struct arena *arena = arena_create(ARENA_SIZE);
        status = ensure_once(&(struct task_of_admin){.email = str_from_cstr(admin->email),
                                                     .password = str_from_cstr(admin->password),
                                                     .accounts = accounts,
                                                     .arena = arena,
                                                     .error = error});
        arena_destroy(arena);
        if (status == STATUS_ABORTED)
            accounts_back_off(i);
    }
    return status;
}

// --- MakeAdmin

static enum status make_admin(struct work *work, void *context)
{
    (void)work;
    return ensure_once(context);
}

enum status admin_make(struct work *work)
{
    const Vectron__Auth__V1__MakeAdminRequest *request = (const void *)work->request;
    struct task_of_admin task = {
        .password = str_from_cstr(request->password),
        .accounts = work->authsvc->accounts,
        .arena = work->arena,
        .error = &work->error,
    };
    TRY(email_normalise(str_from_cstr(request->email), work->arena, &work->error, &task.email));
    TRY(password_check_rules(task.password, &work->error));
    TRY(work_repeat(work, make_admin, &task));
    Vectron__Auth__V1__MakeAdminResponse *response =
        work_message(work, &vectron__auth__v1__make_admin_response__descriptor);
    response->user_id = arena_cstr(work->arena, task.user_id);
    work->audit_who = STR("operator"); // whoever holds the secret of the tokens
    work->audit_target = str_from_cstr(response->user_id);
    work->response = &response->base;
    return STATUS_OK;
}
