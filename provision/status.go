package provision

import "time"

// SyncStatus is the state of a Syncer for people and programs.
type SyncStatus struct {
	Source      Source    `json:"source"` // empty: no snapshot yet
	FetchedAt   time.Time `json:"fetched_at,omitzero"`
	AgeSeconds  float64   `json:"age_seconds"`
	PublishedAt time.Time `json:"published_at,omitzero"`
	Fingerprint string    `json:"fingerprint,omitempty"` // hexadecimal
	Counts      Counts    `json:"counts"`

	Problems     map[ProblemKind]int `json:"problems"`               // of the snapshot in use
	ProblemsList []Problem           `json:"problems_list,omitzero"` // at most 1000 of them

	Fetching            bool      `json:"fetching"`
	LastKind            FetchKind `json:"last_kind,omitempty"`  // of the newest poll: full or states
	LastFetchSeconds    float64   `json:"last_fetch_seconds"`   // of the newest poll
	LastError           string    `json:"last_error,omitempty"` // of the newest fetch that failed, of any kind
	LastErrorAt         time.Time `json:"last_error_at,omitzero"`
	ConsecutiveFailures int       `json:"consecutive_failures"` // of whole fetches
	NextPoll            time.Time `json:"next_poll,omitzero"`

	StatesAt         time.Time  `json:"states_at,omitzero"` // when the states in use were read, by either kind of poll
	StatesAgeSeconds float64    `json:"states_age_seconds"`
	StateFailures    int        `json:"state_failures"`     // of polls of states, in a row
	NextFull         time.Time  `json:"next_full,omitzero"` // when a poll becomes a whole fetch
	Hints            HintStatus `json:"hints"`
	Overrides        int        `json:"overrides"` // states set here that no fetch has confirmed yet

	StoredAt   time.Time   `json:"stored_at,omitzero"`
	StoreError string      `json:"store_error,omitempty"`
	Held       *HeldStatus `json:"held,omitempty"`
}

// HintStatus tells what became of hints that a customer changed.
type HintStatus struct {
	Pending       int       `json:"pending"`   // customers that wait to be read again
	Received      uint64    `json:"received"`  // since the start
	Overflows     uint64    `json:"overflows"` // hints that a poll of all states stood in for
	LastAt        time.Time `json:"last_at,omitzero"`
	LastAppliedAt time.Time `json:"last_applied_at,omitzero"`
	LastSeconds   float64   `json:"last_seconds"` // from the hint to the snapshot, of the newest batch
	LastError     string    `json:"last_error,omitempty"`
	LastErrorAt   time.Time `json:"last_error_at,omitzero"`
}

// HeldStatus is a fetch that the guard holds. The snapshot in use before it
// stays in use.
type HeldStatus struct {
	Fingerprint string        `json:"fingerprint"` // hexadecimal
	FetchedAt   time.Time     `json:"fetched_at"`
	Since       time.Time     `json:"since"` // when this answer was first held
	Seen        int           `json:"seen"`  // how often this same answer came in a row
	AcceptAfter int           `json:"accept_after,omitempty"`
	Rejected    bool          `json:"rejected"` // an operator said no to this answer before
	Source      Source        `json:"source"`
	Kind        FetchKind     `json:"kind"`
	Counts      Counts        `json:"counts"`
	Decision    GuardDecision `json:"decision"`
}

// GuardStatus is what "usher guard show" tells.
type GuardStatus struct {
	Limits GuardLimits `json:"limits"`
	Held   *HeldStatus `json:"held,omitempty"`
}

// EnforceStatus is the state of an Enforcer for people and programs.
type EnforceStatus struct {
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

	LastBatchChanges int       `json:"last_batch_changes"`
	LastBatchSeconds float64   `json:"last_batch_seconds"`
	LastVerifiedAt   time.Time `json:"last_verified_at,omitzero"`
	DriftExtra       uint64    `json:"drift_extra"`   // since the start
	DriftMissing     uint64    `json:"drift_missing"` // since the start
	TableRepairs     uint64    `json:"table_repairs"` // since the start: rules or the whole table
	LastDriftAt      time.Time `json:"last_drift_at,omitzero"`
	LastDrift        []string  `json:"last_drift,omitempty"`    // the first few elements
	LastDriftBy      []string  `json:"last_drift_by,omitempty"` // programs with their process ids
	OpenUntil        time.Time `json:"open_until,omitzero"`     // maintenance: everybody passes
	FlowsDeleted     uint64    `json:"flows_deleted"`           // since the start
	FlowsError       string    `json:"flows_error,omitempty"`

	LastError           string    `json:"last_error,omitempty"`
	LastErrorAt         time.Time `json:"last_error_at,omitzero"`
	ConsecutiveFailures int       `json:"consecutive_failures"`
}
