// Package outbox keeps MAC reports for the ERP until they are delivered: one
// per address, the newest wins, over restarts.
package outbox

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/provision"
)

// Sender delivers one report. An error that is provision.ErrRefused drops the
// report; after any other it is sent again.
type Sender interface {
	SetMAC(ctx context.Context, ip netip.Addr, mac provision.MAC) error
}

// Result is what became of one report. A closed set: it is a metric label.
type Result string

// The results.
const (
	ResultSent    Result = "sent"    // the ERP took it
	ResultRefused Result = "refused" // the ERP said no; dropped
	ResultFailed  Result = "failed"  // not delivered; kept, sent again later
	ResultSettled Result = "settled" // the ERP had it already; dropped unsent
)

// Observer sees what an Outbox does. Its methods must not block or call back.
type Observer interface {
	Delivered(r Result)
	Depth(n int) // reports that wait, after each change
}

// Options direct an Outbox.
type Options struct {
	Enabled     bool          // false: reports are kept, not sent
	Rate        float64       // calls per second; zero or less: one
	Burst       int           // zero or less: one
	SendTimeout time.Duration // of one call; zero: 30 s
	// Settled says that the ERP has the MAC for the address by now; nil: never.
	Settled func(ip netip.Addr, mac provision.MAC) bool
}

// Outbox is the durable queue. Its methods are safe for concurrent use.
type Outbox struct{}

// Open reads the reports kept in db. A record that cannot be read is skipped,
// counted and logged. obs may be nil.
func Open(db *bbolt.DB, opts Options, sender Sender, obs Observer, log *slog.Logger) (*Outbox, error) {
	return &Outbox{}, nil
}

// PutTx stores r as part of a transaction of the same database; it is sent
// after the commit. An older report never replaces a newer one.
func (o *Outbox) PutTx(tx *bbolt.Tx, r provision.MACReport) error { return nil }

// Put stores r durably in a transaction of its own.
func (o *Outbox) Put(r provision.MACReport) error { return nil }

// Run delivers until ctx ends; it gives nil then.
func (o *Outbox) Run(ctx context.Context) error { return nil }

// Reconfigure changes the rate at run time.
func (o *Outbox) Reconfigure(rate float64, burst int, enabled bool) {}

// Status tells the state; at most n entries are listed, the oldest first.
func (o *Outbox) Status(n int) Status { return Status{} }

// Status is the state of an Outbox for people and programs.
type Status struct {
	Enabled     bool      `json:"enabled"`
	Depth       int       `json:"depth"`
	OldestAt    time.Time `json:"oldest_at,omitzero"`
	PausedUntil time.Time `json:"paused_until,omitzero"` // the ERP does not answer; no call before
	Sent        uint64    `json:"sent"`                  // since the start
	Refused     uint64    `json:"refused"`
	Failed      uint64    `json:"failed"`
	Settled     uint64    `json:"settled"`
	BadRecords  int       `json:"bad_records"` // skipped when the database was opened
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Entries     []Entry   `json:"entries,omitempty"`
	RefusedList []Refusal `json:"refused_list,omitempty"` // the newest 100, newest first
}

// Entry is one report that waits.
type Entry struct {
	provision.MACReport
	Attempts  int       `json:"attempts"`
	NextTry   time.Time `json:"next_try"`
	LastError string    `json:"last_error,omitempty"`
}

// Refusal is a report that the ERP did not want.
type Refusal struct {
	provision.MACReport
	RefusedAt time.Time `json:"refused_at"`
	Reason    string    `json:"reason"`
}
