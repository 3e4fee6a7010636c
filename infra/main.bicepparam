// For `az deployment sub create`; azd reads main.parameters.json. The production profile.
using './main.bicep'

param environmentName = 'prod'
param location = 'westeurope'
param authClientId = readEnvironmentVariable('PGKEEP_AUTH_CLIENT_ID')
param workerImage = readEnvironmentVariable('PGKEEP_WORKER_IMAGE', '')
param redundancy = 'Standard_RAGZRS'
param fullDays = 28
param incrementalDays = 7
param chainDays = 7
param evidenceDays = 400
param privateNetwork = true
param hardwareKeys = false
param catalogueSku = 'Standard_D2ds_v5'
param catalogueTier = 'GeneralPurpose'
param catalogueHighAvailability = true
param defender = true
param locks = true
