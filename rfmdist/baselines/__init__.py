"""The methods that lin-RFM is compared with. Each holds its matrix whole, on one machine; all share one face."""
