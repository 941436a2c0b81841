package emulator

// tariff is a line of the list of tariffs. The ids of the ERP and of the
// billing are the same here, so that no client has to guess which is meant.
type tariff struct {
	id       int64
	name     string
	cents    int64 // per month
	up, down int64 // kbit/s
}

// tariffs are those that the generator gives to customers.
func tariffs() []tariff {
	return []tariff{
		{10, "Домашній 50", 150_00, 51_200, 51_200},
		{11, "Домашній 100", 200_00, 102_400, 102_400},
		{12, "Домашній 300", 250_00, 307_200, 307_200},
		{13, "Гігабіт", 350_00, 1_024_000, 1_024_000},
		{14, "Офіс & бізнес", 900_00, 204_800, 204_800},
	}
}

// service is a line of the list of services.
type service struct {
	id    int64
	cents int64 // usual price per month
}

// services are static address, television, rent of a router.
func services() []service { return []service{{1, 50_00}, {2, 100_00}, {3, 30_00}} }

// getTariffs answers tariff get. The id in the billing has an older name too.
func getTariffs(_ *Emulator, r *request) (answer, error) {
	billingID := "billing_uuid"
	if r.profile.old() {
		billingID = "billing_ext_id"
	}
	return data(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, t := range tariffs() {
				enc.id(t.id)
				enc.object(func() {
					enc.intField("id", t.id)
					enc.textField("name", t.name)
					enc.strField("amount", money(t.cents))
					enc.intField("billing_id", 1)
					enc.decimalField(billingID, t.id)
					enc.intField("tariff_group_id", 1)
					enc.strField("service_type", "internet")
				})
			}
		})
	}), nil
}

// getTariffList answers module get_tariff_list. Traffic -1 is without limit, as
// billings have it.
func getTariffList(*Emulator, *request) (answer, error) {
	return bare(func(enc *encoder) {
		enc.keyed(true, func() {
			for _, t := range tariffs() {
				enc.id(t.id)
				enc.object(func() {
					enc.decimalField("id", t.id)
					enc.textField("name", t.name)
					enc.strField("payment", money(t.cents))
					enc.intField("payment_interval", 30)
					enc.key("speed")
					enc.object(func() { enc.intField("up", t.up); enc.intField("down", t.down) })
					enc.intField("traffic", -1)
					enc.strField("service_type", "internet")
				})
			}
		})
	}), nil
}
