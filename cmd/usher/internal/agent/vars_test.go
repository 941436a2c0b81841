package agent

import (
	"net/netip"

	"github.com/usher-agent/usher/provision"
)

var (
	testIP  = netip.MustParseAddr("192.0.2.17")
	testMAC = provision.MAC{0, 0, 0x5e, 0, 0x53, 1}
)
