package lease

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/provision"
)

// Table holds the leases in memory and their copy in a bbolt database.
type Table struct{}

// New makes a table that lives in memory only.
func New() *Table { return &Table{} }

// Open makes a table from what db holds.
func Open(db *bbolt.DB) (*Table, error) { return &Table{}, nil }

// Skipped tells how many stored records could not be read.
func (t *Table) Skipped() (n int, examples []string) { return 0, nil }

// Get gives the record of an address.
func (t *Table) Get(ip netip.Addr) (Record, bool) { return Record{}, false }

// Store puts rec in memory; PutTx or Dirty must follow.
func (t *Table) Store(rec Record) {}

// Renew moves the expiry.
func (t *Table) Renew(ip netip.Addr, mac provision.MAC, now, expires time.Time) bool { return false }

// SetState marks a lease released or declined.
func (t *Table) SetState(ip netip.Addr, mac provision.MAC, s State, now time.Time) bool {
	return false
}

// Dirty asks the background journal to write the record of ip.
func (t *Table) Dirty(ip netip.Addr) {}

// PutTx writes rec within tx.
func (t *Table) PutTx(tx *bbolt.Tx, rec Record) error { return nil }

// Flush writes what is dirty.
func (t *Table) Flush() error { return nil }

// Run flushes and prunes until ctx ends.
func (t *Table) Run(ctx context.Context, interval time.Duration, onError func(error)) error {
	return nil
}

// Prune forgets old records.
func (t *Table) Prune(now time.Time, limit int) int { return 0 }

// All gives every record, in no order.
func (t *Table) All() iter.Seq[Record] { return func(func(Record) bool) {} }

// BySubscriber gives the records of a subscriber, by address.
func (t *Table) BySubscriber(id provision.SubscriberID) []Record { return nil }

// ByMAC gives the records of a MAC, by address.
func (t *Table) ByMAC(mac provision.MAC) []Record { return nil }

// Counts tells how many records there are by what they are at now.
func (t *Table) Counts(now time.Time) Counts { return Counts{} }

// Counts is the number of records by what they are; Bound excludes Expired.
type Counts struct {
	Bound    int `json:"bound"`
	Expired  int `json:"expired"`
	Released int `json:"released"`
	Declined int `json:"declined"`
	Dirty    int `json:"dirty"` // not yet written to disk
}
