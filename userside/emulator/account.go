package emulator

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of Movement. What the ERP writes there is not published.
const (
	movementPay    = "pay"    // an import from the billing
	movementChange = "change" // change_balance
)

// changeBalance answers change_balance: the amount, which may be negative, is
// added to the balance.
func changeBalance(e *Emulator, r *request) (answer, error) {
	amount, err := r.cents("amount")
	if err != nil {
		return answer{}, err
	}
	employee, err := r.employee()
	if err != nil {
		return answer{}, err
	}
	comment := r.text("comment")
	return alter(e, r, "customer_id", ChangeBalance, func(c *Customer, now time.Time) error {
		return e.moveMoney(c, Movement{At: now, Kind: movementChange, Employee: employee, AmountCents: amount, Comment: comment})
	})
}

// moveMoney adds a movement to the account of c; within a change.
func (e *Emulator) moveMoney(c *Customer, m Movement) error {
	next := c.BalanceCents + m.AmountCents
	if next > maxCents || next < -maxCents {
		return badRequest("the balance would leave its range")
	}
	e.lastMovement++
	m.ID, m.BeforeCents = e.lastMovement, c.BalanceCents
	c.BalanceCents = next
	c.Movements = newest(append(c.Movements, m))
	return nil
}

// employee reads employee_id, 0 when it is not there.
func (r *request) employee() (int64, error) {
	if !r.has("employee_id") {
		return 0, nil
	}
	return r.positive("employee_id")
}

// maxCents bounds balances and prices: what fits into a double exactly.
const maxCents = 1_000_000_000_000_00

// cents reads an amount of money: 12, -12.5, +0.05.
func (r *request) cents(name string) (int64, error) {
	n, ok := parseCents(r.param(name))
	if !ok {
		return 0, badRequest("parameter %s: want an amount like -12.50", name)
	}
	return n, nil
}

func parseCents(s string) (int64, bool) {
	digits, negative := strings.CutPrefix(s, "-")
	if !negative {
		digits, _ = strings.CutPrefix(s, "+")
	}
	whole, part, point := strings.Cut(digits, ".")
	if whole == "" || point && part == "" || len(part) > 2 || len(whole) > 12 {
		return 0, false
	}
	n, err := strconv.ParseUint(whole+(part + "00")[:2], 10, 63)
	if err != nil || n > maxCents {
		return 0, false
	}
	if negative {
		return -int64(n), true
	}
	return int64(n), true
}

func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

// getMovements answers abon_hist, newest first: old servers with the columns of
// the documentation of 3.12, newer ones with those that a client of 2026 reads,
// one of them misspelt.
func getMovements(e *Emulator, r *request) (answer, error) {
	id, err := existing(e, r)
	if err != nil {
		return answer{}, err
	}
	moves := e.customer(id).Movements
	return data(func(enc *encoder) {
		enc.list(func() {
			for _, m := range slices.Backward(moves) {
				enc.object(func() { enc.movement(r, m) })
			}
		})
	}), nil
}

func (e *encoder) movement(r *request, m Movement) {
	if r.profile.old() {
		e.intField("Id", m.ID)
		e.strField("type", m.Kind)
		e.strField("DateDo", r.date(m.At))
		e.intField("OperID", m.Employee)
		e.strField("BalansBefore", money(m.BeforeCents))
		e.strField("Amount", money(m.AmountCents))
		e.strField("PKO", "")
		e.textField("Comment", m.Comment)
		e.strField("BillingDopData", "")
		return
	}
	e.strField("Typer", m.Kind)
	e.strField("DateDo", r.date(m.At))
	e.key("empoyee_id") // sic
	if m.Employee == 0 {
		e.null()
	} else {
		e.int(m.Employee)
	}
	e.strField("Amount", money(m.AmountCents))
	e.textField("Comment", m.Comment)
}

// changeBilling answers change_billing.
func changeBilling(e *Emulator, r *request) (answer, error) {
	billing, err := r.positive("billing_id")
	if err != nil {
		return answer{}, err
	}
	return alter(e, r, "customer_id", ChangeEdit, func(c *Customer, _ time.Time) error {
		c.Billing = billing
		if r.has("billing_user_id") && !r.before("3.16.23") {
			c.BillingUID = r.text("billing_user_id")
		}
		return nil
	})
}

// changeDateConnect answers change_date_connect.
func changeDateConnect(e *Emulator, r *request) (answer, error) {
	t, _, err := r.time("value")
	if err != nil {
		return answer{}, err
	}
	return alter(e, r, "customer_id", ChangeEdit, func(c *Customer, _ time.Time) error {
		c.Connected = t
		return nil
	})
}

// tariffChange answers tarif_change, spelt with one f. A tariff that is not in
// the list of tariffs is refused.
func tariffChange(e *Emulator, r *request) (answer, error) {
	id := r.param("tarif")
	if !slices.ContainsFunc(tariffs(), func(t tariff) bool { return strconv.FormatInt(t.id, 10) == id }) {
		return answer{}, notFound("tariff not found")
	}
	return alter(e, r, "customer_id", ChangeTariff, func(c *Customer, _ time.Time) error {
		if c.Tariff == id {
			return errNothing
		}
		c.Tariff = id
		return nil
	})
}

// serviceAdd answers service_add. Without a price the service has its usual one.
func serviceAdd(e *Emulator, r *request) (answer, error) {
	id, err := r.positive("service_id")
	if err != nil {
		return answer{}, err
	}
	all := services()
	i := slices.IndexFunc(all, func(s service) bool { return s.id == id })
	if i < 0 {
		return answer{}, notFound("service not found")
	}
	price := all[i].cents
	if r.has("price") {
		if price, err = r.cents("price"); err != nil {
			return answer{}, err
		}
	}
	comment := r.text("comment")
	return alter(e, r, "customer_id", ChangeService, func(c *Customer, now time.Time) error {
		if len(c.Services) >= maxHistory {
			return badRequest("the customer has %d services already", maxHistory)
		}
		c.Services = append(c.Services, Service{ID: id, PriceCents: price, Comment: comment, Added: now})
		return nil
	})
}

// serviceRemove answers service_remove: every entry of the service.
func serviceRemove(e *Emulator, r *request) (answer, error) {
	id, err := r.positive("service_id")
	if err != nil {
		return answer{}, err
	}
	return alter(e, r, "customer_id", ChangeService, func(c *Customer, _ time.Time) error {
		before := len(c.Services)
		c.Services = slices.DeleteFunc(c.Services, func(s Service) bool { return s.ID == id })
		if len(c.Services) == before {
			return notFound("service not found")
		}
		return nil
	})
}

// customerServices writes the services by their ids: each has a list, for a
// customer may have one several times.
func (e *encoder) customerServices(r *request, c *Customer) {
	if len(c.Services) == 0 || !e.optional() {
		return
	}
	sorted := slices.SortedStableFunc(slices.Values(c.Services), func(a, b Service) int { return cmp.Compare(a.ID, b.ID) })
	e.key("service")
	e.keyed(false, func() {
		for same := range slices.Values(chunks(sorted)) {
			e.id(same[0].ID)
			e.list(func() {
				for _, s := range same {
					e.object(func() {
						e.strField("cost", money(s.PriceCents))
						e.textField("comment", s.Comment)
						e.strField("date_add", r.date(s.Added))
					})
				}
			})
		}
	})
}

// chunks parts sorted services by their ids.
func chunks(sorted []Service) [][]Service {
	var out [][]Service
	for i, s := range sorted {
		if i == 0 || sorted[i-1].ID != s.ID {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], s)
	}
	return out
}
