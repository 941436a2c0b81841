package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
)

// errStateInUse says that another process has the state open.
var errStateInUse = errors.New("another usher runs with this state_dir; stop it first")

// openState opens the database of leases and MAC reports. A damaged file is put
// aside and a new one begun. If the disk gives nothing at all, the database lives
// in memory until the next start: bound addresses need no disk.
func openState(dir string, log *slog.Logger) (db *bbolt.DB, err error) {
	path := filepath.Join(dir, "state.db")
	db, err = openBolt(path, nil)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, errStateInUse)
	case isDamage(err):
		bad := path + ".bad"
		log.Error("state file is damaged, put aside; leases are learned anew", "path", path, "kept_as", bad, "error", err)
		if err := os.Rename(path, bad); err != nil {
			break
		}
		if db, err = openBolt(path, nil); err == nil {
			return db, nil
		}
	}
	log.Error("state file cannot be used; leases and MAC reports live in memory only until a restart", "path", path, "error", err)
	return openBolt(memoryPath, memoryFile)
}

// memoryPath is what a database in memory says for its path.
const memoryPath = "memory"

// inMemory reports whether what is committed to db is lost with the process.
func inMemory(db *bbolt.DB) bool { return db.Path() == memoryPath }

// memoryFile stands for a file on disk.
func memoryFile(string, int, os.FileMode) (*os.File, error) {
	fd, err := unix.MemfdCreate("usher-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("state in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "memory"), nil
}

// openBolt opens path and walks all of it, since bbolt notices most damage only
// when it stumbles over it, by a panic; a file cut short is a fault of memory.
// The list of free pages is kept in the file: without it bbolt would look for
// them in a goroutine of its own, where its panic ends the process.
func openBolt(path string, open func(string, int, os.FileMode) (*os.File, error)) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = damage{fmt.Errorf("%v", r)}
			if db != nil {
				_ = db.Close()
				db = nil
			}
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		OpenFile: open, Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return nil, err
	}
	return db, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

// damage is a file that is not a whole database.
type damage struct{ error }

func isDamage(err error) bool {
	return errors.As(err, &damage{}) || errors.Is(err, bolterrors.ErrInvalid) ||
		errors.Is(err, bolterrors.ErrChecksum) || errors.Is(err, bolterrors.ErrVersionMismatch)
}

// journal stores new facts of leases together with the reports that follow from
// them: one transaction, one sync.
type journal struct {
	db     *bbolt.DB
	leases *lease.Table
	outbox *outbox.Outbox
	admit  func([]dhcpd.Commit, time.Time) (wait func()) // nil: nobody else is told
}

// Commit implements dhcpd.Journal.
func (j journal) Commit(recs []dhcpd.Commit) error {
	if j.admit != nil {
		defer j.admit(recs, time.Now())()
	}
	return j.db.Update(func(tx *bbolt.Tx) error {
		for _, r := range recs {
			if r.Lease.IP.IsValid() {
				if err := j.leases.PutTx(tx, r.Lease); err != nil {
					return err
				}
			}
			if r.Report == nil {
				continue
			}
			if err := j.outbox.PutTx(tx, *r.Report); err != nil {
				return err
			}
		}
		return nil
	})
}

// settled says that a report need not be sent: a snapshot, fetched after it was
// made, has what it would tell (an earlier one may show what another report has
// changed since), or another client holds the address by now, whose own MAC the
// ERP has or will be told.
func settled(snapshot func() *provision.Snapshot, leases *lease.Table) func(provision.MACReport) bool {
	return func(r provision.MACReport) bool {
		s := snapshot()
		if b := s.ByIP(r.IP); b != nil && b.MAC == r.MAC && s.FetchedAt().After(r.At) {
			return true
		}
		rec, ok := leases.Get(r.IP)
		return ok && rec.MAC != r.MAC && rec.Start.After(r.At)
	}
}
