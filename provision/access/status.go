package access

import "time"

// Observer sees what an Enforcer does. Its methods may be called by two
// goroutines at a time, must not block and must not call back.
type Observer interface {
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
	// Withheld tells in a round how many addresses are not blocked though their
	// subscribers are, by the reason.
	Withheld(n map[Spared]int)
	// Refused tells how many elements the kernel refuses now, while all others hold.
	Refused(n int)
	// Flows tells one clean-up of flows: conntrack entries deleted.
	Flows(deleted int, err error)
}

type noObserver struct{}

func (noObserver) Batch(int, time.Duration, error) {}
func (noObserver) Drift(int, int, int)             {}
func (noObserver) Elements(SetCounts)              {}
func (noObserver) Maintenance(bool)                {}
func (noObserver) Withheld(map[Spared]int)         {}
func (noObserver) Refused(int)                     {}
func (noObserver) Flows(int, error)                {}

// Status is the state of an Enforcer for people and programs.
type Status struct {
	DryRun      bool      `json:"dry_run"`
	Ready       bool      `json:"ready"` // the kernel was equal to a snapshot at least once; with DryRun: there is a snapshot
	WantStopped int       `json:"want_stopped"`
	WantPaused  int       `json:"want_paused"`
	HaveStopped int       `json:"have_stopped"`
	HavePaused  int       `json:"have_paused"`
	Want        SetCounts `json:"want"` // of every set
	Have        SetCounts `json:"have"`
	Pending     int       `json:"pending"` // changes that are planned but not in the kernel
	Generation  uint64    `json:"generation,omitempty"`
	Rounds      uint64    `json:"rounds"`
	LastBatchAt time.Time `json:"last_batch_at,omitzero"`

	LastBatchChanges int            `json:"last_batch_changes"`
	LastBatchSeconds float64        `json:"last_batch_seconds"`
	LastVerifiedAt   time.Time      `json:"last_verified_at,omitzero"`
	DriftExtra       uint64         `json:"drift_extra"`   // since the start
	DriftMissing     uint64         `json:"drift_missing"` // since the start
	TableRepairs     uint64         `json:"table_repairs"` // since the start: rules or the whole table
	LastDriftAt      time.Time      `json:"last_drift_at,omitzero"`
	LastDrift        []string       `json:"last_drift,omitempty"`    // the first few elements
	LastDriftBy      []string       `json:"last_drift_by,omitempty"` // programs with their process ids
	OpenUntil        time.Time      `json:"open_until,omitzero"`     // maintenance: everybody passes
	Withheld         map[Spared]int `json:"withheld,omitempty"`      // addresses that are not blocked though their subscribers are
	WithheldList     []Withheld     `json:"withheld_list,omitempty"` // the first of them

	IPv6 IPv6Status `json:"ipv6"`

	// PortalObstacles are what of other tables keeps HTTP of the paused from the portal.
	PortalObstacles []string `json:"portal_obstacles,omitempty"`

	Refused []Refused `json:"refused,omitempty"` // elements that the kernel refuses, the first of them

	FlowsDeleted uint64 `json:"flows_deleted"` // since the start
	FlowsError   string `json:"flows_error,omitempty"`

	LastError           string    `json:"last_error,omitempty"`
	LastErrorAt         time.Time `json:"last_error_at,omitzero"`
	ConsecutiveFailures int       `json:"consecutive_failures"`
}

// Counter is what rules counted.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
