package v4

import (
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// Change is what becomes of the lease record.
type Change uint8

// What may become of a lease record.
const (
	ChangeNone       Change = iota
	ChangeRenew             // the same client in the same place: only the expiry moves
	ChangeBackground        // the same client, but details such as the relay differ
	ChangeFact              // a new client or place: on disk before the ACK
	ChangeRelease
	ChangeDecline
	ChangeHold       // a pool's address is kept for whom it was offered
	ChangePool       // a lease of a pool's address: on disk before the ACK, or there is none
	ChangePoolRenew  // the same client in the same place: only the expiry moves, but that is on disk too
	ChangeQuarantine // a pool's address is in use by somebody else
	ChangeRefused    // the lease of Rec ends, once its client has been sent the NAK
)

// Decision is what to do about one request.
type Decision struct {
	Outcome  outcome.Outcome
	Evidence Evidence
	MAC      provision.MAC
	Match    Match
	Binding  Binding         // of YourIP; none if a pool has it, or nobody
	Port     uint64          // of a pool's client, as portKey has it
	Pool     int             // place of the pool that YourIP is of, from 1; 0: none
	Holder   provision.Owner // whom that pool keeps it for
	YourIP   netip.Addr      // given, or for a NAK: what the client would get

	Rival provision.MAC // who has the address that the client wants: of outcome.TakeoverDamped, outcome.HolderLive and outcome.NakOtherClient
	Until time.Time     // of the first two: when the client may have the address at the latest

	Reply wire.Reply       // Type 0: no answer
	Lease *wire.LeaseReply // what is sent instead of Reply: the answer to a leasequery
	Way   wire.Way
	To    netip.AddrPort // of wire.WayRelay and wire.WayUnicast

	Change Change
	Rec    lease.Record // of changes that store one; its slices are the packet's. Of ChangeRelease and ChangeDecline the MAC
	Keep   bool         // of ChangeRelease and ChangeDecline: nobody can tell whether the client sent it; the address stays its own until the lease ends
	Swap   bool         // of an OFFER: its ACK would be reported
	Report bool         // the ERP does not have this MAC for the address; without a change: of Rec's IP and subscriber alone
}

// Durable reports whether the answer must not leave before its lease is on disk.
func (d *Decision) Durable() bool { return d.Change == ChangePool || d.Change == ChangePoolRenew }

// AppendReply appends what is to be sent.
func (d *Decision) AppendReply(dst []byte, p *wire.Packet) []byte {
	if d.Lease != nil {
		return d.Lease.Append(dst, p)
	}
	return d.Reply.Append(dst, p)
}
