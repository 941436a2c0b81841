package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/wal"
)

// Store is the disk behind a Table and behind the queue of MAC reports: who got
// an address and "tell the ERP" are kept together. It is read once at the start;
// from then on the memory answers, and the Store only takes what changed. Its
// methods may be called from several goroutines.
//
// A disk that cannot be used is no reason not to start: each Commit fails until it can, which the Store tries by
// itself.
type Store interface {
	// Leases calls each with every kept record, or with the reason why one
	// cannot be read. What a disk has that cannot be read yet comes later, from another goroutine: memory that is
	// newer wins. Its error is that of reading at all.
	Leases(each func(Record, error)) error
	// Reports calls each with every kept report, or with the reason why one cannot be read, and later as Leases does.
	Reports(each func(provision.MACReport, error)) error
	// Replaced has f called when what was committed is not on disk any more, because its directory was
	// taken away: f has everything that it knows committed again.
	Replaced(f func())
	// Commit writes a batch: on return all of it is on disk. After an error some of it
	// may be there. It calls fill once the batch has its turn: no other batch comes
	// between fill and the disk, so what fill finds in memory is not older than
	// what is on disk already. Fill must be quick and must not call the Store.
	Commit(fill func(*Batch) error) error
	// Health returns how the disk is.
	Health() Health
	// Failing reports whether commits fail, as Health tells; it is for the packet path.
	Failing() bool
	// Close lets the disk go. A Commit after it fails.
	Close() error
}

// Health is how a Store and its disk are.
type Health struct {
	Path string `json:"path"` // of its directory
	// Error says why nothing can be committed, or could not when it was tried last; empty: commits are on disk.
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"` // since when it fails
	// Unread counts what was on disk and could not be read, since the start: each costs itself alone. What tells of the first ones, in
	// words, and PutAside names the files that have them still.
	Unread   int      `json:"unread"`
	What     []string `json:"what,omitempty"`
	PutAside []string `json:"put_aside,omitempty"`

	Log wal.Status `json:"log"`
}

// Failing reports whether commits fail: pools lease nothing then, and what is new of bound addresses lives in memory until it ends.
func (h Health) Failing() bool { return h.Error != "" }

// Batch is what one Commit writes.
type Batch struct {
	Leases []Record     // each in place of what its address had
	Forget []netip.Addr // whose leases are taken out
	// Reports are queued, each in place of an older one of its address: a kept one
	// that outranks it stays. They are as MACReport.Normal returns them.
	Reports []provision.MACReport
	Done    []provision.MACReport // taken out of the queue, unless a newer one has taken the place
	after   []func()
}

// OnCommit has f called after the batch is on disk; calls of two batches may
// come in either order.
func (b *Batch) OnCommit(f func()) { b.after = append(b.after, f) }

// reset makes b empty and keeps its room.
func (b *Batch) reset() {
	b.Leases, b.Forget, b.Reports, b.Done, b.after = b.Leases[:0], b.Forget[:0], b.Reports[:0], b.Done[:0], nil
}

// Commit is what must be on disk before an ACK leaves: a changed fact, such as a
// new client of an address or the same one behind another port, and the report
// that follows from it. It may be a report alone that is still due at a renewal;
// Lease is the current record then. Of a client that is not answered before the
// ERP has its MAC there is no lease: its IP is invalid.
type Commit struct {
	Lease  Record
	Report *provision.MACReport // nil: the ERP knows the MAC already
}

// Queue adds a report to a batch. An outbox is one.
type Queue interface {
	Add(b *Batch, r provision.MACReport) error
	// Keep takes a report of which the commit failed; it is written when that is possible again.
	Keep(r provision.MACReport)
}

// Journal stores new facts of leases together with the reports that follow from
// them: one batch, one sync.
type Journal struct {
	Table   *Table
	Reports Queue
}

// Commit stores all of recs or nothing. It does not keep them. After an error the reports wait in the
// queue; leases are the caller's to try again.
func (j Journal) Commit(recs []Commit) error {
	err := j.Table.store.Commit(func(b *Batch) error {
		done := make([]written, 0, len(recs))
		for i := range recs {
			if recs[i].Lease.IP.IsValid() {
				w, err := j.Table.add(b, &recs[i].Lease)
				if err != nil {
					return err
				}
				if w.version != 0 {
					done = append(done, w)
				}
			}
			if recs[i].Report == nil {
				continue
			}
			if err := j.Reports.Add(b, *recs[i].Report); err != nil {
				return err
			}
		}
		b.OnCommit(func() { j.Table.saved(done...) })
		return nil
	})
	if err != nil {
		for i := range recs {
			if recs[i].Report != nil {
				j.Reports.Keep(*recs[i].Report)
			}
		}
	}
	return err
}

// ErrInUse says that another process has the state open.
var ErrInUse = errors.New("another usher runs with this state_dir; stop it first")

var errClosed = errors.New("it is closed")

// errNotYet begins the error of a Commit before the disk could be read.
var errNotYet = errors.New("the lease log cannot be used")

func notYet(why error) error { return fmt.Errorf("%w: %w", errNotYet, why) }
