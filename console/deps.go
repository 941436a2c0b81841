// Package console is what people and programs see of a running agent: metrics
// and health for the monitoring, an overview page, and the control API on a
// unix socket that the sub-commands of usher talk to.
//
// It only looks, with four exceptions that all live on the unix socket: the
// guard's accept and reject, the change of a subscriber's state, the
// maintenance of the block lists, and the end of a lease. Each of these leaves an audit record. Nothing
// here is needed to serve packets: a listener that fails is retried.
package console

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/senders"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/provision/wayback"
	"github.com/usher-agent/usher/userside"
)

// Deps is what the console looks at. Syncer is required; a part that the
// configuration switches off stays nil (an untyped nil, no nil pointer).
type Deps struct {
	Build   Build
	Started time.Time
	DryRun  bool             // nothing is touched and nobody answered
	Now     func() time.Time // nil: time.Now

	Syncer   Syncer
	Enforcer Enforcer            // nil: acl.enabled is false
	Kernel   Kernel              // nil: the kernel is not asked for single addresses
	ACL      *ACLDeps            // nil: acl.enabled is false
	DHCP     DHCP                // nil: dhcp.enabled is false
	Pools    Pools               // nil: dhcp.enabled is false
	Leases   Leases              // nil: no leases
	State    func() lease.Health // of the disk behind leases and MAC reports; nil: not told
	Dropper  LeaseDropper        // nil: leases cannot be ended from here
	Routes   Routes              // nil: routes.enabled is false
	Events   *dhcpd.EventLog     // nil: packets are not remembered
	Outbox   Outbox              // nil: MACs are not reported
	Garden   Garden              // nil: there are no gardens
	ERP      StateChanger        // nil: states cannot be changed from here
	Metrics  *Metrics            // nil: no counts by outcome
	Config   func() ConfigStatus // nil: not told
	Audit    Audit               // nil: acts leave no record

	ERPCalls func() []userside.Pending // that the ERP has not answered yet; nil: not told
	// Answers tells why the file with what the ERP said could not be used, and why it cannot be written; nil: not told.
	Answers func() (unread, unstored string)

	Doors    func() []door.Status     // of the own listeners; nil: not told
	WaysBack func() []wayback.Finding // relays whose packets the kernel drops; nil: not looked for

	Multicast func() bool // whether this router forwards multicast; nil: not known

	RouteProtocol uint8 // marks the routes of Routes
}

// Build says which program runs.
type Build struct {
	Version   string `json:"version"`
	Revision  string `json:"revision,omitempty"`
	GoVersion string `json:"go_version"`
}

// ConfigStatus says which configuration is in use.
type ConfigStatus struct {
	Path      string    `json:"path"`
	LoadedAt  time.Time `json:"loaded_at"`
	Hash      string    `json:"hash,omitempty"`
	LastError string    `json:"last_error,omitempty"` // of a reload that failed; the earlier configuration is in use

	MissingInterfaces []string `json:"missing_interfaces,omitempty"`   // file:line:column: key: reason of names in it that no interface of this host has now
	Unguarded         []string `json:"unguarded_interfaces,omitempty"` // subscribers come in by them, and no source guard looks at them
}

// Syncer is the part of syncer.Syncer that is shown and steered.
type Syncer interface {
	SyncView
	SyncGuard
	// Override applies a state that the ERP confirmed at the time at.
	Override(id provision.SubscriberID, st provision.State, at time.Time)
	// Hint has a subscriber read again.
	Hint(id provision.SubscriberID)
}

// SyncView shows what is in use.
type SyncView interface {
	Current() *provision.Snapshot
	Status() syncer.Status
}

// SyncGuard shows and decides on what the guard holds.
type SyncGuard interface {
	GuardStatus() syncer.GuardStatus
	HeldChanges(id provision.SubscriberID) []syncer.HeldChange
	HeldOwner(ip netip.Addr) provision.SubscriberID
	Accept(fingerprint string) (*syncer.HeldStatus, error)
	Reject(fingerprint string) (*syncer.HeldStatus, error)
	AcceptSource(name syncer.SourceName, fingerprint string) (syncer.SourceStatus, error)
}

// Enforcer is the part of access.Enforcer that is shown and waited for.
type Enforcer interface {
	Status() access.Status
	// Sync waits for a whole round that began after the call.
	Sync(ctx context.Context) error
}

// Kernel tells in which set of the kernel one address is.
type Kernel interface {
	Holds(ctx context.Context, addr netip.Addr) (stopped, paused bool, err error)
}

// DHCP is the part of dhcpd.Server that is shown.
type DHCP interface {
	LocalAddr() netip.AddrPort
	Explain(q dhcpd.Query) dhcpd.Explanation
	Sockets() dhcpd.SocketStatus
	Option82Profiles() []option82.Profile
	Senders() senders.Status
	Spares(rec *lease.Record) bool
}

// Leases is the part of lease.Table that is shown.
type Leases interface {
	Get(ip netip.Addr) (lease.Record, bool)
	BySubscriber(id provision.SubscriberID) []lease.Record
	ByMAC(mac provision.MAC) []lease.Record
	Counts(now time.Time) lease.Counts
	Overruled(s *provision.Snapshot, now time.Time, most int) (n int, first []lease.Record)
}

// Routes is the part of route.Keeper that is shown.
type Routes interface {
	Status() route.Status
	Rows(ctx context.Context, now time.Time) ([]route.Row, error)
}

// Outbox is the part of outbox.Outbox that is shown.
type Outbox interface {
	Status(n int) outbox.Status
}

// StateChanger asks the ERP to change a subscriber's state. An error that is
// provision.ErrRefused means that the ERP said no, one that is
// provision.ErrUncertain that nobody knows whether it did it.
type StateChanger interface {
	ChangeState(ctx context.Context, id provision.SubscriberID, st provision.State) error
	// HasState reports whether the ERP has a subscriber in a state now.
	HasState(ctx context.Context, id provision.SubscriberID, st provision.State) (bool, error)
}

// Audit is the part of audit.Log that acts are told to.
type Audit interface{ Add(r audit.Record) }

func (d *Deps) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

// noSnapshot says why there is none. Only of an ERP of which nothing is known it
// says that it has not answered.
func noSnapshot(st syncer.Status) string {
	switch {
	case st.Held != nil:
		return "the guard holds what the ERP answers (" + st.Held.Decision.Reason + "), and none is stored"
	case st.LastError != "":
		return "none is stored, and the ERP could not be read: " + st.LastError
	}
	return "the ERP has not answered and none is stored"
}

// notReady returns the reasons why the agent does not do its whole job yet; none
// when it does.
func (d *Deps) notReady() []string {
	reasons := []string{}
	if d.Syncer.Current() == nil {
		reasons = append(reasons, "no snapshot yet: "+noSnapshot(d.Syncer.Status()))
	}
	if d.DHCP != nil && !d.DryRun && !d.DHCP.LocalAddr().IsValid() {
		reasons = append(reasons, "the DHCP socket is not bound")
	}
	if d.Enforcer != nil && !d.Enforcer.Status().Ready {
		reasons = append(reasons, "the ACL has not been applied to the kernel yet")
	}
	if d.State != nil && d.hasPools() {
		if h := d.State(); h.Failing() {
			reasons = append(reasons, fmt.Sprintf("pools lease nothing: leases cannot be written to %s: %s", h.Path, h.Error))
		}
	}
	return reasons
}
