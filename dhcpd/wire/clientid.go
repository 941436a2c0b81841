package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Types of a client identifier (RFC 2132 section 9.14, RFC 4361 section 6.1)
// and of the DUID in one (RFC 8415 section 11).
const (
	clientIDText     = 0 // anything, mostly a name
	clientIDEthernet = 1
	clientIDDUID     = 255

	duidLLT  = 1 // link-layer address and time
	duidEN   = 2 // enterprise number
	duidLL   = 3 // link-layer address
	duidUUID = 4 // RFC 6355

	hwEthernet = 1
)

// ClientIDMAC returns the Ethernet address within a client identifier: after type
// 1 (RFC 2132), or in the DUID-LLT or DUID-LL of RFC 4361. A client may write
// there what it likes: the address says who it claims to be, not where its
// frames come from.
func ClientIDMAC(id []byte) (mac [6]byte, ok bool) {
	switch {
	case len(id) == 7 && id[0] == clientIDEthernet:
		mac = [6]byte(id[1:])
	case len(id) >= 9 && id[0] == clientIDDUID:
		duid := id[5:] // after the IAID
		switch {
		case len(duid) == 14 && duidType(duid) == duidLLT && binary.BigEndian.Uint16(duid[2:]) == hwEthernet:
			mac = [6]byte(duid[8:])
		case len(duid) == 10 && duidType(duid) == duidLL && binary.BigEndian.Uint16(duid[2:]) == hwEthernet:
			mac = [6]byte(duid[4:])
		}
	}
	// Zeros and broadcast name nobody.
	return mac, mac != [6]byte{} && mac != [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
}

func duidType(duid []byte) uint16 { return binary.BigEndian.Uint16(duid) }

// DescribeClientID says a client identifier in words for people, such as
// "iaid 53000001 duid-ll ethernet 00:00:5e:00:53:01". What cannot be told apart is
// hexadecimal. It allocates.
func DescribeClientID(id []byte) string {
	switch {
	case len(id) == 0:
		return ""
	case len(id) == 7 && id[0] == clientIDEthernet:
		return "ethernet " + macText(id[1:])
	case id[0] == clientIDDUID && len(id) >= 7:
		return "iaid " + hex.EncodeToString(id[1:5]) + " " + describeDUID(id[5:])
	case id[0] == clientIDText && len(id) > 1 && printable(id[1:]):
		return fmt.Sprintf("text %q", id[1:])
	case printable(id):
		return fmt.Sprintf("text %q", id)
	}
	return "bytes " + hex.EncodeToString(id)
}

func describeDUID(duid []byte) string {
	body := duid[2:]
	switch t := duidType(duid); {
	case t == duidLLT && len(body) > 6:
		return "duid-llt " + linkText(body[:2], body[6:])
	case t == duidLL && len(body) > 2:
		return "duid-ll " + linkText(body[:2], body[2:])
	case t == duidEN && len(body) > 4:
		return fmt.Sprintf("duid-en enterprise %d %x", binary.BigEndian.Uint32(body), body[4:])
	case t == duidUUID && len(body) == 16:
		return fmt.Sprintf("duid-uuid %x-%x-%x-%x-%x", body[:4], body[4:6], body[6:8], body[8:10], body[10:])
	}
	return "duid " + hex.EncodeToString(duid)
}

func linkText(hardware, addr []byte) string {
	if binary.BigEndian.Uint16(hardware) == hwEthernet && len(addr) == 6 {
		return "ethernet " + macText(addr)
	}
	return fmt.Sprintf("hardware %d %x", binary.BigEndian.Uint16(hardware), addr)
}

func macText(b []byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}
