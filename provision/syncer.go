package provision

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// SyncOptions direct a Syncer.
type SyncOptions struct {
	PollInterval time.Duration // between the starts of two polls; zero: a minute
	PollJitter   float64       // each interval is longer or shorter by up to this share, 0..0.5
	FetchTimeout time.Duration // of one fetch; zero: five minutes
	Guard        GuardLimits
	Subnets      []netip.Prefix // see Input
	Reserved     []netip.Addr   // see Input
}

// SnapshotStore keeps the last good snapshot over restarts; see Store.
type SnapshotStore interface {
	Load() (*Snapshot, error)
	Save(*Snapshot) error
}

// ErrNothingHeld says that the guard holds no fetch.
var ErrNothingHeld = errors.New("the guard holds nothing")

// Syncer polls the ERP, guards what it says and publishes snapshots.
type Syncer struct{}

// NewSyncer makes a Syncer. store and obs may be nil.
func NewSyncer(opts SyncOptions, source Fetcher, store SnapshotStore, obs SyncObserver, log *slog.Logger) *Syncer {
	return &Syncer{}
}

// LoadStored publishes the stored snapshot, if there is one and nothing newer
// is in use. Call it before Run. An error is for the log, never fatal; no stored
// snapshot is no error.
func (s *Syncer) LoadStored() error { return nil }

// Run polls until ctx ends; it gives nil then.
func (s *Syncer) Run(ctx context.Context) error { return nil }

// Current gives the snapshot in use, nil before the first.
func (s *Syncer) Current() *Snapshot { return nil }

// Refresh asks for a poll now; many calls may become one.
func (s *Syncer) Refresh() {}

// Updates gives a channel with one slot that gets a value after every
// publication; several may become one. Each call makes a channel of its own,
// for the life of the Syncer: call it once per consumer.
func (s *Syncer) Updates() <-chan struct{} { return nil }

// Override applies a state at once that the ERP has confirmed at the time at. A
// fetch that began before does not undo it; the first one published that began
// later replaces it.
func (s *Syncer) Override(id SubscriberID, st State, at time.Time) {}

// Status tells everything for "usher status" and the console.
func (s *Syncer) Status() SyncStatus { return SyncStatus{} }

// GuardStatus tells what the guard holds.
func (s *Syncer) GuardStatus() GuardStatus { return GuardStatus{} }

// Accept publishes the newest fetch that the guard holds.
func (s *Syncer) Accept() error { return ErrNothingHeld }

// Reject forgets the held fetch. See GuardStatus.
func (s *Syncer) Reject() error { return ErrNothingHeld }

// Reconfigure takes new options and asks for a poll with them.
func (s *Syncer) Reconfigure(opts SyncOptions) {}
