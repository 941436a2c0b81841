package lease

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
)

// Store is the disk behind a Table and behind the queue of MAC reports: who got
// an address and "tell the ERP" are kept together. It is read once at the start;
// from then on the memory answers, and the Store only takes what changed. Its
// methods may be called from several goroutines.
type Store interface {
	// Leases calls each with every kept record, or with the reason why one
	// cannot be read. Its error is that of reading at all.
	Leases(each func(Record, error)) error
	// Reports calls each with every kept report, or with the reason why one cannot be read.
	Reports(each func(provision.MACReport, error)) error
	// Commit writes a batch: on return all of it is on disk, or after an error
	// nothing. It calls fill once the batch has its turn: no other batch comes
	// between fill and the disk, so what fill finds in memory is not older than
	// what is on disk already. Fill must be quick and must not call the Store.
	Commit(fill func(*Batch) error) error
	// Volatile reports whether what is committed is lost with the process.
	Volatile() bool
	// Close lets the disk go. A Commit after it fails.
	Close() error
}

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
}

// Journal stores new facts of leases together with the reports that follow from
// them: one batch, one sync.
type Journal struct {
	Table   *Table
	Reports Queue
}

// Commit stores all of recs or nothing. It does not keep them.
func (j Journal) Commit(recs []Commit) error {
	return j.Table.store.Commit(func(b *Batch) error {
		for i := range recs {
			if recs[i].Lease.IP.IsValid() {
				if err := j.Table.add(b, recs[i].Lease); err != nil {
					return err
				}
			}
			if recs[i].Report == nil {
				continue
			}
			if err := j.Reports.Add(b, *recs[i].Report); err != nil {
				return err
			}
		}
		return nil
	})
}

// ErrInUse says that another process has the state open.
var ErrInUse = errors.New("another usher runs with this state_dir; stop it first")

// OpenStore opens the database of leases and MAC reports in dir. A damaged file
// is put aside and a new one begun. One that a newer usher wrote is refused with
// a *statedir.NewerError. If the disk gives nothing at all, the
// database lives in memory until the next start: bound addresses need no disk.
func OpenStore(dir string, log *slog.Logger) (Store, error) {
	path := filepath.Join(dir, "state.db")
	s, err := openBolt(path, nil, formats(), log)
	switch {
	case err == nil:
		return s, nil
	case errors.As(err, new(*statedir.NewerError)):
		return nil, err
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	case isDamage(err):
		bad := path + ".bad"
		log.Error("state file is damaged, put aside; leases are learned anew", "path", path, "kept_as", bad, "error", err)
		if err := os.Rename(path, bad); err != nil {
			break
		}
		if s, err = openBolt(path, nil, formats(), log); err == nil {
			return s, nil
		}
	}
	log.Error("state file cannot be used; leases and MAC reports live in memory only until a restart", "path", path, "error", err)
	return OpenMemory()
}

// OpenMemory opens a store that is lost with the process.
func OpenMemory() (Store, error) {
	s, err := openBolt(memoryPath, memoryFile, formats(), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return s, nil
}
