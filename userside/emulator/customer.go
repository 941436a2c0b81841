package emulator

import (
	"cmp"
	"slices"
	"strconv"
)

// getCustomerData answers get_data: one id gives the customer, several give an
// object keyed by id, whose member "error" tells that some are unknown.
func getCustomerData(e *Emulator, r *request) (answer, error) {
	ids, err := dataIDs(e, r)
	if err != nil {
		return answer{}, err
	}
	var found []*Customer
	for _, id := range ids {
		if c := e.customer(id); c != nil {
			found = append(found, c)
		}
	}
	if r.quirks.CardsOfAll {
		found = e.customerList()
		ids = make([]int64, len(found))
	}
	switch {
	case len(found) == 0:
		return answer{}, notFound("customer not found")
	case len(ids) == 1:
		return data(func(enc *encoder) { enc.customer(r, found[0]) }), nil
	}
	return data(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, c := range found {
				enc.id(c.ID)
				enc.customer(r, c)
			}
			if len(found) < len(ids) && !enc.listForMap {
				enc.strField("error", "customer not found")
			}
		})
	}), nil
}

// dataIDs reads whom get_data asks for: customer_id or id, or account_number
// with billing_id.
func dataIDs(e *Emulator, r *request) ([]int64, error) {
	for _, name := range []string{"customer_id", "id"} {
		if r.has(name) {
			return r.ids(name)
		}
	}
	if !r.has("account_number") || !r.has("billing_id") {
		return nil, badRequest("customer_id, or account_number with billing_id, is missing")
	}
	billing, err := r.int("billing_id")
	if err != nil {
		return nil, err
	}
	for _, c := range e.customerList() {
		if c.AccountNumber == r.param("account_number") && cmp.Or(c.Billing, 1) == billing {
			return []int64{c.ID}, nil
		}
	}
	return nil, notFound("customer not found")
}

// customer writes a customer as get_data and get_user_list have it (API page,
// section 3.3).
func (e *encoder) customer(r *request, c *Customer) {
	e.object(func() {
		e.intField("id", c.ID)
		e.textField("login", c.Login)
		e.textField("full_name", c.FullName)
		e.flagField("flag_corporate", c.Corporate)
		if c.Potential || e.optional() {
			e.flagField("is_potential", c.Potential)
		}
		e.strField("balance", money(c.BalanceCents))
		if !e.noState {
			e.intField("state_id", int64(c.State))
		}
		e.key("agreement")
		e.list(func() {
			if c.AgreementNumber != "" {
				e.object(func() {
					e.textField("number", c.AgreementNumber)
					e.strField("date", r.date(c.AgreementDate))
				})
			}
		})
		e.customerDates(r, c)
		e.flagField("is_disable", c.Disabled)
		e.customerAddress(c)
		e.customerBilling(r, c)
		if c.Group != 0 {
			e.key("group")
			e.keyed(true, func() { e.id(c.Group); e.object(func() { e.intField("id", c.Group) }) })
		}
		if len(c.Addresses) > 0 {
			e.key("ip_mac")
			e.ipMAC(c)
		}
		e.customerContacts(c)
		e.customerServices(r, c)
		if len(c.Marks) > 0 {
			e.key("mark")
			e.keyed(true, func() {
				for _, m := range c.Marks {
					e.id(m)
					e.object(func() { e.intField("id", m) })
				}
			})
		}
	})
}

func (e *encoder) customerDates(r *request, c *Customer) {
	e.key("traffic")
	e.object(func() {
		e.key("month")
		e.object(func() { e.intField("up", 0); e.intField("down", 0) })
	})
	e.strField("date_create", r.date(c.Created))
	e.strField("date_connect", r.day(c.Connected))
	e.strField("date_activity", r.date(c.Active))
	e.strField("date_activity_inet", r.date(c.activeInternet()))
	e.strField("date_positive_balance", r.day(c.Active))
}

func (e *encoder) customerAddress(c *Customer) {
	e.key("address")
	e.list(func() {
		e.object(func() {
			e.strField("type", "connect")
			e.intField("house_id", c.House)
			if c.Apartment != "" {
				e.key("apartment")
				e.object(func() { e.textField("number", c.Apartment) })
			}
			if c.House != 0 {
				e.intField("entrance", int64(c.Entrance))
				e.strField("floor", strconv.Itoa(c.Floor))
			}
		})
	})
}

func (e *encoder) customerBilling(r *request, c *Customer) {
	e.flagField("is_in_billing", !c.NotInBilling)
	e.strField("billing_id", c.BillingUID) // despite its name: the id in the billing
	if !r.profile.old() && e.optional() {
		e.key("billing")
		e.object(func() {
			e.intField("id", cmp.Or(c.Billing, 1))
			e.strField("uuid", c.BillingUID)
		})
	}
	e.key("tariff")
	e.object(func() {
		e.key("current")
		e.list(func() {
			if c.Tariff != "" {
				e.object(func() { e.strField("id", c.Tariff) })
			}
		})
	})
	if e.optional() {
		e.textField("account_number", c.AccountNumber)
		e.intField("manager_id", c.Manager)
		if c.Parent != 0 {
			e.intField("parent_id", c.Parent)
		}
	}
}

// customerContacts writes the contacts. The empty second phone is what live
// servers send.
func (e *encoder) customerContacts(c *Customer) {
	e.key("phone")
	e.list(func() {
		for i, p := range append(slices.Clip(c.Phones), "") {
			e.object(func() {
				e.textField("number", p)
				if i == 0 && p != "" {
					e.intField("flag_main", 1)
				}
			})
		}
	})
	if len(c.Emails) > 0 && e.optional() {
		e.key("email")
		e.list(func() {
			for i, m := range c.Emails {
				e.object(func() {
					e.textField("address", m)
					if i == 0 {
						e.intField("flag_main", 1)
					}
				})
			}
		})
	}
	if e.optional() {
		e.textField("comment", c.Comment)
	}
	e.strField("comment2", "")
}
