#pragma once

#include "authsvc/work.h"

// ListAuditEvents: the audit log of this process, for admins. Runs on a pool's thread.

enum status audit_events_list(struct work *work);
