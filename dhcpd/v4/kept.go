package v4

import (
	"time"

	"github.com/usher-agent/usher/provision/lease"
)

// renewable reports whether an ACK to the client of a lease goes on with it: it is bound, if
// only till lately, or kept for the client after a RELEASE or DECLINE that need not be its own.
func renewable(rec *lease.Record, now time.Time) bool {
	return rec.State == lease.StateBound || rec.Kept(now)
}
