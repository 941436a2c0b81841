package provision

import "time"

// FetchOutcome is what became of one fetch. A closed set: it is a metric label.
type FetchOutcome string

// The outcomes of a fetch.
const (
	FetchPublished FetchOutcome = "published" // in use now
	FetchHeld      FetchOutcome = "held"      // the guard holds it
	FetchFailed    FetchOutcome = "failed"    // the ERP could not be read
)

// FetchKind says how much of the ERP a fetch reads. A closed set: it is a metric label.
type FetchKind string

// The kinds of fetches.
const (
	FetchFull      FetchKind = "full"      // bindings, states and devices
	FetchStates    FetchKind = "states"    // who is stopped and who is paused
	FetchCustomers FetchKind = "customers" // a few customers that hints named
)

// FetchReport tells one fetch.
type FetchReport struct {
	Kind    FetchKind
	Outcome FetchOutcome
	Took    time.Duration
	Waited  time.Duration // FetchCustomers: from the oldest of the hints to the end
	Err     error         // nil unless FetchFailed
}

// SyncObserver sees what a Syncer does; the console makes metrics of it. Its
// methods are called one at a time, must not block and must not call back.
type SyncObserver interface {
	Fetched(r FetchReport)
	// Published tells each snapshot that comes into use: fetched, stored,
	// accepted by hand or changed by an override. problems has a count of every
	// kind met, and is nil for a snapshot that was read from disk.
	Published(s *Snapshot, problems map[ProblemKind]int)
	// Held tells the fetch that the guard holds now, nil when it holds none any more.
	Held(h *HeldStatus)
	Stored(took time.Duration, err error)
}

// EnforceObserver sees what an Enforcer does. Its methods may be called by two
// goroutines at a time, must not block and must not call back.
type EnforceObserver interface {
	// Batch tells one commit to the kernel: its number of changes, how long it
	// took, and the error if it failed.
	Batch(changes int, took time.Duration, err error)
	// Drift tells a read-back that found what nobody of us wrote: elements that
	// were there too many, elements that were missing, and how often the table
	// itself had to be replaced. All may be zero.
	Drift(extra, missing, rebuilt int)
	// Elements tells the number of elements in the kernel after a round.
	Elements(n SetCounts)
	// Maintenance tells after a round whether everybody is let through for a time.
	Maintenance(open bool)
	// Flows tells one clean-up of flows: conntrack entries deleted.
	Flows(deleted int, err error)
}

type noSyncObserver struct{}

func (noSyncObserver) Fetched(FetchReport)                      {}
func (noSyncObserver) Published(*Snapshot, map[ProblemKind]int) {}
func (noSyncObserver) Held(*HeldStatus)                         {}
func (noSyncObserver) Stored(time.Duration, error)              {}

type noEnforceObserver struct{}

func (noEnforceObserver) Batch(int, time.Duration, error) {}
func (noEnforceObserver) Drift(int, int, int)             {}
func (noEnforceObserver) Elements(SetCounts)              {}
func (noEnforceObserver) Maintenance(bool)                {}
func (noEnforceObserver) Flows(int, error)                {}
