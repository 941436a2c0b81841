// Package audit keeps the record of acts: what an operator did and what was written
// to the ERP, when, by whom or on which evidence, and with what result. It is a
// file of JSON lines in the state directory (docs/audit.md), which the agent and
// the commands that work without it append to.
//
// A record is told of an act that is over. Nothing waits for it and nothing
// depends on it: one that cannot be written undoes no act.
package audit

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/provision"
)

// version is that of the form of a record. New fields do not change it.
const version = 1

// Act is what was done. A closed set.
type Act string

// The acts.
const (
	SetMAC        Act = "erp.set_mac"    // the agent told the ERP a MAC
	CallERP       Act = "erp.call"       // a command called a writing action of the ERP by itself
	CustomerState Act = "customer.state" // in the ERP and, at once, in the kernel
	GuardAccept   Act = "guard.accept"
	GuardReject   Act = "guard.reject"
	ACLOpen       Act = "acl.open"
	ACLClose      Act = "acl.close"
	ACLVerify     Act = "acl.verify"
	ACLClear      Act = "acl.clear"
	RoutesClear   Act = "routes.clear"
	LeaseDrop     Act = "lease.drop"
	ConfigReload  Act = "config.reload"
	Lost          Act = "audit.lost" // no act: records are missing here
)

// Result is how an act ended. A closed set.
type Result string

// The results.
const (
	Done    Result = "done"
	Refused Result = "refused" // the agent or the ERP said no; nothing was changed
	Failed  Result = "failed"  // it was not done
	Partial Result = "partial" // the ERP took it, and the kernel had not followed yet

	Uncertain Result = "uncertain" // the ERP was asked, and nobody knows whether it did it
)

// By is the way that an act came. A closed set.
type By string

// The ways.
const (
	BySocket  By = "socket"  // the control socket: the kernel says which process asked
	ByCommand By = "command" // a command that did it by itself: its own process
	BySignal  By = "signal"  // SIGHUP, of which nobody knows the sender
	ByAgent   By = "agent"   // by itself, on the evidence
)

// Record is one act. What does not apply is zero, and absent in the file.
type Record struct {
	Version int       `json:"v"`
	Time    time.Time `json:"time"` // when it was over
	Act     Act       `json:"act"`
	Who     Who       `json:"who"`
	What    What      `json:"what,omitzero"`
	Result  Result    `json:"result"`
	Error   string    `json:"error,omitempty"`
	// DryRun is that of the whole agent: nothing was touched. KernelDryRun is acl.dry_run: the rules were not.
	DryRun       bool `json:"dry_run,omitempty"`
	KernelDryRun bool `json:"kernel_dry_run,omitempty"`
}

// Who did it.
type Who struct {
	By       By        `json:"by"`
	*Process           // nil: not known, or the agent
	Evidence *Evidence `json:"evidence,omitempty"` // of what the agent did by itself; nil: none is left
}

// Process is a process as the kernel knows it.
type Process struct {
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	PID  int32  `json:"pid"`
	User string `json:"user,omitempty"` // name of UID, if it has one
}

// Evidence is the packet of a client, with where it was when its lease was given or renewed last, or where ARP
// alone showed it.
type Evidence struct {
	Device    provision.DeviceID `json:"device,omitempty"`
	Port      uint32             `json:"port,omitempty"`
	Interface string             `json:"interface,omitempty"`
	Relay     netip.Addr         `json:"relay,omitzero"`     // giaddr
	Option82  string             `json:"option82,omitempty"` // hexadecimal
	Renewed   time.Time          `json:"renewed,omitzero"`   // newest ACK
	Seen      time.Time          `json:"seen,omitzero"`      // when the packet came
	Source    netip.AddrPort     `json:"source,omitzero"`    // who sent it
	VouchedBy string             `json:"vouched_by,omitempty"`
	MatchedBy string             `json:"matched_by,omitempty"`
	Rule      string             `json:"rule,omitempty"` // row of docs/dhcp-matching.md
	ARP       *ARP               `json:"arp,omitempty"`  // nil: DHCP showed it
}

// ARP is how the kernel's ARP table showed a MAC on Interface.
type ARP struct {
	Seen   time.Time     `json:"seen"`            // when it was believed
	Silent provision.MAC `json:"silent,omitzero"` // the ERP's MAC, which did not answer for the address; zero: it had none
	Asked  uint8         `json:"asked,omitempty"` // how often it was asked
}

// What it was about.
type What struct {
	Customer    provision.SubscriberID `json:"customer,omitempty"`
	State       string                 `json:"state,omitempty"`  // asked for
	Before      string                 `json:"before,omitempty"` // state that the agent knew
	Addresses   []netip.Addr           `json:"addresses,omitempty"`
	IP          netip.Addr             `json:"ip,omitzero"`
	MAC         provision.MAC          `json:"mac,omitzero"`
	Attempts    int                    `json:"attempts,omitempty"` // of telling the ERP, this one included
	Source      string                 `json:"source,omitempty"`   // of the ERP, that was held
	Action      string                 `json:"action,omitempty"`   // of the ERP, such as customer.ip_add
	Arguments   map[string]string      `json:"arguments,omitempty"`
	Fingerprint string                 `json:"fingerprint,omitempty"`
	Held        string                 `json:"held,omitempty"`    // why the guard held it
	Seconds     float64                `json:"seconds,omitempty"` // asked for
	Reason      string                 `json:"reason,omitempty"`  // the operator's words
	Until       time.Time              `json:"until,omitzero"`
	WasOpen     *bool                  `json:"was_open,omitempty"`
	Extra       uint64                 `json:"extra,omitempty"` // elements repaired
	Missing     uint64                 `json:"missing,omitempty"`
	Rebuilt     bool                   `json:"rebuilt,omitempty"` // the rules were replaced
	Protocol    uint8                  `json:"protocol,omitempty"`
	Removed     *int                   `json:"removed,omitempty"` // routes
	Path        string                 `json:"path,omitempty"`    // of the configuration
	Hash        string                 `json:"hash,omitempty"`    // of its content
	Records     int                    `json:"records,omitempty"` // that were lost
}

// What is kept of one record is bounded.
const (
	maxText      = 500 // bytes of one text
	maxAddresses = 64
	maxArguments = 64
)

// line returns r as a line of the file.
func (r Record) line(now time.Time) ([]byte, error) {
	r.Version = version
	if r.Time.IsZero() {
		r.Time = now
	}
	r.Time = r.Time.UTC()
	w := &r.What
	for _, s := range []*string{&r.Error, &w.State, &w.Before, &w.Action, &w.Fingerprint, &w.Held, &w.Reason, &w.Path, &w.Hash} {
		*s = clip(*s)
	}
	if len(w.Addresses) > maxAddresses {
		w.Addresses = w.Addresses[:maxAddresses]
	}
	if w.Arguments != nil {
		names := slices.Sorted(maps.Keys(w.Arguments))
		kept := make(map[string]string, min(len(names), maxArguments))
		for _, name := range names[:min(len(names), maxArguments)] {
			kept[clip(name)] = clip(w.Arguments[name])
		}
		w.Arguments = kept
	}
	b, err := json.Marshal(r)
	return append(b, '\n'), err
}

// clip bounds a text, at the border of a letter.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}
