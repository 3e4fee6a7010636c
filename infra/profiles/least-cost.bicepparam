// The least that is still a backup in another place: one region, no private network, a small catalogue.
using '../main.bicep'

param environmentName = 'small'
param location = 'westeurope'
param authClientId = readEnvironmentVariable('PGKEEP_AUTH_CLIENT_ID')
param workerImage = readEnvironmentVariable('PGKEEP_WORKER_IMAGE', '')
param redundancy = 'Standard_LRS'
param privateNetwork = false
param maxExecutions = 2
param catalogueSku = 'Standard_B1ms'
param catalogueTier = 'Burstable'
param catalogueHighAvailability = false
param defender = false
param locks = true
param telemetryDays = 30
