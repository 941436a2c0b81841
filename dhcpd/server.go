// Package dhcpd is the DHCPv4 server: it answers clients with the addresses
// that the ERP binds to their switch port or MAC. One pure function, decide,
// turns a request into a reply plan and an Outcome; the server around it owns
// the sockets, the durable commit before an ACK and the observers.
package dhcpd

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/lease"
	"github.com/usher-agent/usher/provision"
)

// Commit is a changed fact that must be on disk before its ACK leaves: a new
// client of an address, or the same one behind another port.
type Commit struct {
	Lease  lease.Record
	Report *provision.MACReport // nil: the ERP knows the MAC already
}

// Journal makes changed facts durable.
type Journal interface {
	// Commit stores all of recs, leases and reports, in one transaction. It must not keep recs.
	Commit(recs []Commit) error
}

// Deps is what the server needs from outside. Snapshot and Leases are
// required. Without a Journal records stay in memory.
type Deps struct {
	Snapshot func() *provision.Snapshot
	Leases   *lease.Table
	Journal  Journal
	Observer Observer
	Log      *slog.Logger
	Now      func() time.Time
}

// Server is the DHCP server.
type Server struct{}

// New compiles opts and makes a server that does not listen yet.
func New(opts Options, deps Deps) (*Server, error) { return &Server{}, nil }

// Listen opens the sockets.
func (s *Server) Listen() error { return nil }

// LocalAddr is the address the server listens on; invalid before Listen.
func (s *Server) LocalAddr() netip.AddrPort { return netip.AddrPort{} }

// Run serves until ctx ends. It returns nil then.
func (s *Server) Run(ctx context.Context) error { return nil }

// Reload makes new options take effect for the next packet. The listen address cannot change.
func (s *Server) Reload(opts Options) error { return nil }
