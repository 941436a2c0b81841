// Package echo answers DHCP packets and decides nothing: the floor under what a
// server's answers may cost. Each answer is as long as its question.
package echo

import (
	"context"
	"fmt"

	"github.com/usher-agent/usher/bench/batch"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Places in a packet, whose first option is the message type as in those of package load.
const (
	yiaddrAt = 16
	chaddrAt = 28
	typeAt   = 242
	least    = typeAt + 1
)

// Serve answers what comes to the socket until ctx ends: a DISCOVER by an OFFER,
// another packet by an ACK. The address that it gives is made of the first byte of
// the MAC and the last three.
func Serve(ctx context.Context, conn *batch.Conn) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Wake() })()
	for {
		n, err := conn.Receive(-1)
		if err != nil {
			return fmt.Errorf("echo: %w", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		for i := range n {
			answer(conn.Packet(i))
		}
		if err := conn.Answer(n); err != nil {
			return fmt.Errorf("echo: %w", err)
		}
	}
}

// answer turns a question into its answer; what is too short stays as it is.
func answer(p []byte) {
	if len(p) < least {
		return
	}
	p[0] = 2 // BOOTREPLY
	p[yiaddrAt] = p[chaddrAt]
	copy(p[yiaddrAt+1:yiaddrAt+4], p[chaddrAt+3:chaddrAt+6])
	if p[typeAt] == byte(wire.Discover) {
		p[typeAt] = byte(wire.Offer)
	} else {
		p[typeAt] = byte(wire.Ack)
	}
}
