package emulator

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The look-ups with one value for an answer. Its key is not published: old
// profiles give it under a key of its own, newer ones as data, so that clients
// meet both (API page, section 2.1).

// scalar answers with one value.
func scalar(r *request, own string, write func(*encoder)) answer {
	key := "data"
	if r.profile.old() {
		key = own
	}
	return answer{body: func(enc *encoder) { enc.key(key); write(enc) }}
}

// getActivityCounter answers get_activity_counter: how many customers were
// active in the 24 hours before the newest activity that is known of anyone.
func getActivityCounter(e *Emulator, r *request) (answer, error) {
	var last func(*Customer) time.Time
	switch r.param("type") {
	case "net":
		last = func(c *Customer) time.Time { return c.Active }
	case "internet":
		last = (*Customer).activeInternet
	case "personal_area":
		last = func(c *Customer) time.Time { return c.ActiveCabinet }
	default:
		return answer{}, badRequest("parameter type: want net, internet or personal_area")
	}
	all := e.bulk(r)
	var newest time.Time
	for _, c := range all {
		if t := last(c); t.After(newest) {
			newest = t
		}
	}
	n := int64(0)
	for _, c := range all {
		if t := last(c); !t.IsZero() && newest.Sub(t) < 24*time.Hour {
			n++
		}
	}
	return scalar(r, "Amount", func(enc *encoder) { enc.int(n) }), nil
}

func (c *Customer) activeInternet() time.Time {
	if c.ActiveInternet.IsZero() {
		return c.Active
	}
	return c.ActiveInternet
}

// getLastIP answers get_last_ip: the highest address that a customer has, as a
// hint for the next one to give out. Old profiles print it as a number, newer
// ones dotted; the true form is not published. With no address in use it is empty.
func getLastIP(e *Emulator, r *request) (answer, error) {
	var last netip.Addr
	for _, c := range e.customerList() {
		for _, a := range c.Addresses {
			if a.IP.IsValid() && (!last.IsValid() || a.IP.Compare(last) > 0) {
				last = a.IP
			}
		}
	}
	return scalar(r, "ip", func(enc *encoder) {
		if r.profile.old() {
			enc.decimal(int64(ipNumber(last)))
			return
		}
		if !last.IsValid() {
			enc.str("")
			return
		}
		enc.str(last.String())
	}), nil
}

// getMaxAgreementNumber answers get_max_agreement_number: the highest number at
// the end of an agreement's number, 0 without any.
func getMaxAgreementNumber(e *Emulator, r *request) (answer, error) {
	billing := int64(0)
	if r.has("billing_id") {
		var err error
		if billing, err = r.positive("billing_id"); err != nil {
			return answer{}, err
		}
	}
	most := int64(0)
	for _, c := range e.customerList() {
		if billing == 0 || max(c.Billing, 1) == billing {
			most = max(most, endNumber(c.AgreementNumber))
		}
	}
	return scalar(r, "Number", func(enc *encoder) { enc.int(most) }), nil
}

// endNumber reads the digits at the end; more than 15 of them are no number.
func endNumber(s string) int64 {
	digits := s[len(strings.TrimRight(s, "0123456789")):]
	if len(digits) > 15 {
		return 0
	}
	n, _ := strconv.ParseInt(digits, 10, 64) // none: 0
	return n
}
