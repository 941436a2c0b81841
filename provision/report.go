package provision

import (
	"errors"
	"net/netip"
	"time"
)

// ErrRefused marks an error by which the ERP says no to this very change, and
// will say no again: the address is not known, the MAC is not wanted. A wrong
// key, a time-out, a 5xx answer or a page that is no answer are not refusals.
var ErrRefused = errors.New("refused by the ERP")

// MACReport says that a bound address was acknowledged to a MAC which the ERP
// does not have for it.
type MACReport struct {
	IP         netip.Addr   `json:"ip"`
	MAC        MAC          `json:"mac"`
	Subscriber SubscriberID `json:"subscriber,omitempty"`
	At         time.Time    `json:"at"` // when the packet came
}
